"""`lading node doctor`, the real program, on machines behind routers of each kind: what it says is what is so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from integration.net_nat.hub import Hub
from integration.net_nat.igd import Igd
from integration.net_nat.lab import Lab, Place, require_lab


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    require_lab()
    with Lab() as made:
        yield made


@pytest.fixture(scope="module")
def hub(lab: Lab) -> Iterator[Hub]:
    made = Hub(lab.public("hub", "203.0.113.1"))
    yield made
    made.close()


def ask(place: Place, *coordinators: str, more: tuple[str, ...] = ("--json",)) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "lading.cli.main", "node", "doctor", "--http", "9", *more]
    for each in coordinators:
        command += ["--coordinator", each]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LADING_")}
    environment = {**kept, "LADING_SETTINGS": os.devnull, "COLUMNS": "200"}
    return subprocess.Popen(
        place.command(*command), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def told(asked: subprocess.Popen[str]) -> tuple[int, str]:
    said, trouble = asked.communicate(timeout=40)
    assert "Traceback" not in trouble, trouble
    return asked.returncode, said or trouble


def ways(asked: subprocess.Popen[str]) -> tuple[int, dict[str, Any], dict[str, Any]]:
    code, said = told(asked)
    found = json.loads(said)
    return code, found, {way["name"]: way for way in found["ways"]}


def test_each_kind_of_home_is_told_apart(lab: Lab, hub: Hub) -> None:
    public = lab.public("public", "203.0.113.20")
    closed = lab.home("closed", "symmetric", "203.0.113.21")
    lab.home("opening", "restricted", "203.0.113.22")
    lab.home("shut", "restricted", "203.0.113.23")
    routers = [Igd(lab.places["openingr"]), Igd(lab.places["shutr"], fault="606")]
    try:
        asked = [ask(place, hub.endpoint) for place in (public, closed, lab.places["opening"])]
        refused = ask(lab.places["shut"], hub.endpoint, more=())
        nowhere = ask(public, "/ip4/203.0.113.1/tcp/9", more=("--listen", "/ip4/0.0.0.0/tcp/4109", "--json"))
        (first, second, third) = (ways(each) for each in asked)
        _check_public(*first)
        _check_closed(*second)
        _check_opening(*third)
        assert routers[0].opened == {}  # it was for the moment only
        code, said = told(refused)
        assert code == 0
        assert "it lets nobody open ports" in said
        code, found, by_name = ways(nowhere)
        assert (code, found["healthy"]) == (3, False)
        assert "No coordinator answers" in by_name["dialled out"]["why"]
        assert "firewall" in by_name["dialled out"]["todo"]
    finally:
        for router in routers:
            router.close()


def _check_public(code: int, found: dict[str, Any], by_name: dict[str, Any]) -> None:
    assert (code, found["healthy"]) == (0, True)
    assert found["kind"].startswith("none")
    assert by_name["direct"]["works"] is True
    assert by_name["direct"]["endpoint"].startswith("/ip4/203.0.113.20/tcp/4101/p2p/")


def _check_closed(code: int, found: dict[str, Any], by_name: dict[str, Any]) -> None:
    assert code == 0
    assert (found["address"], found["outside"]) == ("10.0.0.1", "203.0.113.21")
    assert by_name["dialled out"]["works"] is True
    assert by_name["direct"]["works"] is False
    assert "10.0.0.1 at home and 203.0.113.21 to the world" in by_name["direct"]["why"]
    assert "--announce" in by_name["direct"]["todo"]
    assert by_name["opened by the router"]["works"] is False
    assert "No router" in by_name["opened by the router"]["why"]
    assert by_name["relayed"]["works"] is True
    assert "/p2p-circuit/" in by_name["relayed"]["endpoint"]


def _check_opening(code: int, found: dict[str, Any], by_name: dict[str, Any]) -> None:
    assert code == 0
    assert by_name["opened by the router"]["works"] is True
    assert by_name["opened by the router"]["endpoint"].startswith("/ip4/203.0.113.22/tcp/4101/p2p/")
    assert found["outside"] == "203.0.113.22"
