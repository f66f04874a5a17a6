"""A WebAssembly agent over the whole road: published, served by a node, called through a coordinator and directly."""

import json
from pathlib import Path

from integration.cli.quay import ROOT, Quay, call
from lading_protocol.work import FUEL, text_bytes

TEXT = json.dumps({"text": "Write to ada@example.org"})


def test_a_wasm_agent_is_published_served_called_and_paid(quay: Quay, tmp_path: Path) -> None:
    t = quay.theatre
    host = quay.operator("a host of wasm")
    t.agents["redact"] = quay.run(t.publish(ROOT / "wasm_agents/redact", t.cast.maker))
    quay.run(t.raise_node(host, "0.2", "0.6", ["redact"]))
    quay.until(lambda: "redact" in call("models", *quay.through, "--json").out, "the coordinator lists the agent")
    home = quay.consumer("a caller", deposit="5")
    api_key = quay.session(home)["api_key"]
    paper = tmp_path / "receipt.json"
    asked = ("run", "redact", TEXT, "--operation", "redact", "--json")
    through = call(*asked, *quay.through, "--api-key", api_key).tree
    answer = json.loads(through["text"])
    assert "ada@example.org" not in answer["text"]
    assert int(through["cost_wei"]) > 0
    wrong = call("run", "redact", TEXT, "--operation", "fly", "--json", *quay.through, "--api-key", api_key)
    assert "It does redact" in wrong.error["message"]
    peer = json.loads(quay.run(t.first_line(host.name)))["endpoints"][0]
    flags = (*quay.network, "--home", quay.consumer("a direct caller", deposit="5"), "--peer", peer, "--receipt", paper)
    direct = call(*asked, *flags).tree
    assert (direct["text"], direct["usage"]) == (through["text"], through["usage"])
    ids = json.loads(paper.read_text())["ids"]
    assert text_bytes(ids).decode() == direct["text"]
    assert FUEL in ids
    assert direct["usage"]["completion_tokens"] == len(ids)
