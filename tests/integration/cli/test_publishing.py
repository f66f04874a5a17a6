"""Publishing with several parties: nothing is sent until all consent, and everything that is signed is said before."""

import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from integration.cli.quay import Outcome, Quay, call
from lading_demo.cast import COIN, Party, party
from lading_demo.scenes import ROOT
from lading_protocol.ids import to_hex

TABLE = {"maker": 1000, "curator": 300}


class Yard:
    """A publisher and a curator of their own, and a small project."""

    def __init__(self, quay: Quay, folder: Path) -> None:
        self.quay = quay
        self.folder = folder
        self.maker, self.curator = (self._person(name) for name in ("a maker", "a curator"))
        text = (ROOT / "agents/chat/agent.toml").read_text().replace('name = "lading-chat"', 'name = "yard"')
        (folder / "agent.toml").write_text(text)
        shutil.copytree(ROOT / "agents/chat/model", folder / "model")

    def _person(self, name: str) -> Party:
        who = party(f"{name} of {self.folder}", "yard")
        self.quay.run(self.quay.theatre.fund(who, COIN))
        return who

    def flags(self, who: Party) -> tuple[object, ...]:
        return "--home", self.quay.theatre.home(who), *self.quay.network

    @property
    def lines(self) -> list[str]:
        people = {"maker": self.maker, "curator": self.curator}
        return [word for role, bps in TABLE.items() for word in ("--party", self.line(people[role], role, bps))]

    @staticmethod
    def line(who: Party, role: str, bps: int) -> str:
        return f"{role}={to_hex(who.address)}:{bps}"

    def publish(self, *more: object) -> Outcome:
        to = ("--to", self.quay.theatre.direct)
        return call("agent", "publish", self.folder, *self.lines, *to, *self.flags(self.maker), *more)

    def height(self) -> int:
        head = self.quay.run(self.quay.theatre.chain.block())
        assert head is not None
        return int(head.number)

    def sent(self, who: Party) -> int:
        answer = self.quay.run(
            self.quay.theatre.chain.request("eth_getTransactionCount", [to_hex(who.address), "latest"])
        )
        return int(answer, 16)


@pytest.fixture
def yard(quay: Quay, tmp_path: Path) -> Yard:
    return Yard(quay, tmp_path)


def test_a_party_that_did_not_consent_stops_everything(yard: Yard) -> None:
    ended = yard.publish("--json")
    assert (ended.code, ended.error["code"]) == (4, "refused")
    assert f"curator {to_hex(yard.curator.address)}" in ended.error["message"]
    assert "lading agent consent 0x" in ended.error["hint"]
    assert yard.sent(yard.maker) == 0


def test_a_signed_consent_is_matched_to_its_party(yard: Yard) -> None:
    """From the project folder and from the digest alone, the curator signs the same."""
    publisher = ("--publisher", to_hex(yard.maker.address))
    consent = call("agent", "consent", yard.folder, *yard.lines, *publisher, *yard.flags(yard.curator), "--json").tree
    assert consent["party"] == to_hex(yard.curator.address)
    assert "You get 3 % as curator" in consent["signs"]
    said = call("agent", "consent", yard.folder, *yard.lines, *publisher, *yard.flags(yard.curator), "--dry-run").out
    assert "host 87 %" in said
    assert consent["consent"] not in said
    rehearsed = yard.publish("--consent", consent["consent"], "--dry-run", "--json").tree
    assert rehearsed["would"] == "be accepted"
    assert [words.split(" ")[0] for words in rehearsed["signs"]] == ["Register", "Agree"]
    assert yard.sent(yard.maker) == 0
    shown = yard.publish("--consent", consent["consent"])
    assert shown.code == 0
    assert "as yours" in shown.out
    assert "3 %, host 87 %" in shown.out
    made = yard.publish("--json").tree
    assert made["terms"] == consent["terms"]
    again = call("agent", "consent", made["agent"], *yard.lines, *yard.flags(yard.curator), "--json").tree
    assert again["consent"] == consent["consent"]
    assert yard.sent(yard.maker) == 2
    (table,) = call("agent", "terms", "--agent", made["agent"], *yard.flags(yard.maker), "--json").tree
    assert (table["terms"], table["open"], table["sunset"]) == (made["terms"], True, 0)
    assert [row["share"] for row in table["parties"]] == [1000, 300]
    assert "its signature" in table["parties"][1]["consents by"]


def test_consents_that_do_not_fit_are_refused(yard: Yard) -> None:
    who = ("--publisher", to_hex(yard.maker.address))
    flags = yard.flags(yard.curator)
    other = ("--party", yard.line(yard.curator, "curator", 400))
    wrong = call("agent", "consent", yard.folder, *other, *who, *flags, "--json").tree["consent"]
    ended = yard.publish("--consent", wrong, "--json")
    assert (ended.code, ended.error["code"]) == (2, "bad_settings")
    assert "is for another table" in ended.error["message"]
    for text in ("0x12", "nonsense", f"0x12={wrong}"):
        ended = yard.publish("--consent", text, "--json")
        assert (ended.code, ended.error["code"]) == (2, "bad_settings")
    stranger = call(
        "agent", "consent", yard.folder, *yard.lines, *who, *yard.flags(yard.quay.theatre.cast.oem), "--json"
    )
    assert (stranger.code, stranger.error["code"]) == (2, "bad_settings")
    assert "is no party of this table" in stranger.error["message"]
    late = call("agent", "consent", yard.folder, *yard.lines, *who, *flags, "--until", "2020-01-01", "--json").tree
    ended = yard.publish("--consent", late["consent"], "--json")
    assert (ended.code, ended.error["code"]) == (4, "refused")
    assert "has expired" in ended.error["message"]
    assert yard.sent(yard.maker) == 0


def test_a_policy_is_a_standing_consent_until_it_ends(yard: Yard) -> None:
    flags = yard.flags(yard.curator)
    assert call("agent", "policy", "curator", "3%", *flags, "--json").tree["policy"] == 300
    rehearsed = yard.publish("--dry-run", "--json").tree
    assert rehearsed["would"] == "be accepted"
    assert call("agent", "policy", "curator", "0", *flags, "--json").tree["policy"] == 0
    assert yard.publish("--json").code == 4


def test_an_agent_ends_and_is_followed(yard: Yard) -> None:
    flags = yard.flags(yard.maker)
    call("agent", "policy", "curator", "300", *yard.flags(yard.curator))
    first: dict[str, Any] = yard.publish("--json").tree
    text = (yard.folder / "agent.toml").read_text().replace('version = "1', 'version = "2.1')
    (yard.folder / "agent.toml").write_text(text)
    second = yard.publish("--json").tree
    assert second["agent"] != first["agent"]
    told = call("agent", "supersede", first["agent"], second["agent"], *flags, "--json").tree
    assert told["successor"] == second["agent"]
    table = ("agent", "sunset", first["agent"], "--terms", first["terms"])
    ended = call(*table, *flags, "--at", "2020-01-01", "--json")
    assert (ended.code, ended.error["code"]) == (2, "bad_settings")
    assert "7 days" in ended.error["message"]
    rehearsed = call(*table, *flags, "--dry-run", "--json").tree
    assert "nothing is locked under the terms" in rehearsed["signs"][0]
    gone = call(*table, *flags, "--json").tree
    assert gone["sunset"] > time.time() + 7 * 86_400
    (shown,) = call("agent", "terms", first["terms"], *flags, "--json").tree
    assert (shown["open"], shown["sunset"]) == (True, gone["sunset"])
    assert call(*table, *flags, "--cancel", "--json").tree["sunset"] == "none"
    assert call("agent", "sunset", first["agent"], *flags, "--json").tree["sunset"] > time.time() + 7 * 86_400
    stranger = call("agent", "sunset", first["agent"], *yard.flags(yard.curator), "--json")
    assert (stranger.code, stranger.error["code"]) == (4, "reverted")


def test_the_contracts_say_who_governs_and_are_what_they_should_be(quay: Quay) -> None:
    told = call("chain", "status", *quay.network, "--json").tree
    record = quay.theatre.contracts.deployment
    assert told["contracts"]["LineageCourt"] == to_hex(record.lineage_court)
    assert (len(told["governor"]), told["timelock"], len(told["contracts"])) == (1, 60, 12)
    found = call("chain", "verify", *quay.network, "--json").tree
    assert {row["finding"] for row in found} == {"genuine"}
