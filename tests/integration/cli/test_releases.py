"""An agent's releases on a real network: published, followed by a running node, taken back."""

import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest

from integration.cli.quay import Outcome, Quay, call
from lading_demo.cast import COIN, party
from lading_demo.scenes import ROOT
from lading_protocol.ids import to_hex


class Shipyard:
    """A publisher with a project of its own."""

    def __init__(self, quay: Quay, folder: Path) -> None:
        self.quay = quay
        self.folder = folder / "barge"
        self.maker = party(f"maker of {folder}", "releases")
        quay.run(quay.theatre.fund(self.maker, COIN))
        shutil.copytree(ROOT / "agents/chat/model", self.folder / "model")
        self.write("1")

    def write(self, version: str) -> None:
        text = (ROOT / "agents/chat/agent.toml").read_text().replace('name = "lading-chat"', 'name = "barge"')
        (self.folder / "agent.toml").write_text(text.replace('version = "1"', f'version = "{version}"'))

    def lading(self, verb: str, *words: object) -> Outcome:
        to = ("--to", self.quay.theatre.direct) if verb in ("publish", "update", "yank") else ()
        home = ("--home", self.quay.theatre.home(self.maker))
        network = self.quay.network if to else ()
        return call("agent", verb, *words, *to, *home, *network, "--json")


@pytest.fixture
def yard(quay: Quay, tmp_path: Path) -> Shipyard:
    return Shipyard(quay, tmp_path)


def test_an_agent_is_published_followed_and_taken_back(quay: Quay, yard: Shipyard) -> None:
    first: dict[str, Any] = yard.lading("publish", yard.folder).tree
    assert first["release"] > 0
    t, host = quay.theatre, quay.operator("a follower")
    t.agents["barge"] = first
    quay.run(t.raise_node(host, "0.1", "0.1", ["barge"]))

    def offered() -> list[str]:
        data = httpx.get(f"{t.http}/v1/models", timeout=20).json()["data"]
        return [one["agent"] for one in data if one["id"] == "barge"]

    quay.until(lambda: offered() == [first["agent"]], "the first release is offered", 60)
    unchanged = yard.lading("update", yard.folder).tree
    assert unchanged["agent"] == first["agent"]
    assert unchanged["release"] > first["release"]
    yard.write("2")
    rehearsed = yard.lading("update", yard.folder, "--dry-run").tree
    assert [words.split(" ")[0] for words in rehearsed["signs"]] == ["Register", "Agree", "Name"]
    second = yard.lading("update", yard.folder).tree
    assert (second["replaces"], second["name"]) == (first["agent"], "barge 2")
    quay.until(lambda: offered() == [second["agent"]], "the node serves the second release, and no other", 60)
    held = quay.run(t.contracts.registry.agent(bytes.fromhex(first["agent"][2:])))
    assert held is not None
    assert to_hex(held.successor) == second["agent"]
    shown = yard.lading("inspect", second["agent"]).tree["manifest"]
    assert (shown["supersedes"], shown["version"]) == (first["agent"], "2")

    gone = yard.lading("yank", second["agent"], "--reason", "It dreams too much.").tree
    assert gone["yanked"] == second["agent"]
    quay.until(lambda: offered() == [], "the second release is offered no more", 60)
    answer = httpx.get(f"{t.http}/v1/models/{second['agent']}", timeout=20)
    assert "It dreams too much" in answer.json()["error"]["message"]
    assert first["agent"] == httpx.get(f"{t.http}/v1/models/barge", timeout=20).json()["agent"]
    again = yard.lading("update", yard.folder)
    assert (again.code, "was yanked" in again.error["message"]) == (4, True)
    yard.write("3")
    third = yard.lading("update", yard.folder, "--replaces", second["agent"]).tree
    quay.until(lambda: offered() == [third["agent"]], "the node serves the third release", 60)


def test_what_makes_no_release(yard: Shipyard) -> None:
    nothing = yard.lading("update", yard.folder)
    assert (nothing.code, nothing.error["code"]) == (4, "refused")
    assert "lading agent publish" in nothing.error["hint"]
    made = yard.lading("publish", yard.folder).tree
    for reason in ("", "two\nlines"):
        ended = yard.lading("yank", made["agent"], "--reason", reason)
        assert (ended.code, ended.error["code"]) == (2, "bad_settings")
    unknown = yard.lading("yank", "0x" + "11" * 32, "--reason", "Nobody knows it.")
    assert (unknown.code, "not known here" in unknown.error["message"]) == (4, True)
    strange = yard.lading("yank", yard.quay.agent, "--reason", "It is better than mine.")
    assert (strange.code, "not signed by" in strange.error["message"]) == (4, True)
    foreign = yard.lading("update", yard.folder, "--replaces", yard.quay.agent)
    assert (foreign.code, "is not yours" in foreign.error["message"]) == (4, True)


def test_vectors_are_held_before_anything_is_published(yard: Shipyard) -> None:
    (yard.folder / "vectors.jsonl").write_text('{"operation": "chat", "input": "Hello!", "max_tokens": 6}\n')
    waiting = yard.lading("publish", yard.folder)
    assert (waiting.code, "expects nothing yet" in waiting.error["message"]) == (2, True)
    (finding,) = yard.lading("test", yard.folder, "--record").tree
    assert [finding[part] for part in ("expected", "again", "resumed", "scored", "trouble")] == ["yes"] * 4 + [""]
    lines = (yard.folder / "vectors.jsonl").read_text()
    (yard.folder / "vectors.jsonl").write_text(lines.replace('"output": "', '"output": "No. '))
    refused = yard.lading("publish", yard.folder)
    assert (refused.code, "test vectors fail" in refused.error["message"]) == (4, True)
    assert yard.lading("test", yard.folder).code == 1
    (yard.folder / "vectors.jsonl").write_text(lines)
    assert yard.lading("test", yard.folder).code == 0
    made = yard.lading("publish", yard.folder).tree
    manifest = yard.lading("inspect", made["agent"]).tree["manifest"]
    assert len(manifest["vectors"]) == 1
    artifact = yard.folder.parent / "barge.tar"
    assert yard.lading("export", made["agent"], artifact).tree["signed"] is True
    other = yard.folder.parent / "elsewhere"
    taken = call("agent", "import", artifact, "--home", other, "--json").tree
    assert taken["agent"] == made["agent"]
    assert call("agent", "inspect", artifact, "--json").tree["agent"] == made["agent"]
    asked = call("agent", "run", made["agent"], "Hello!", "--max-tokens", "6", "--home", other, "--json").tree
    assert asked["text"] == manifest["vectors"][0]["output"]
