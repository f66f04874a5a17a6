"""What home machines need of others, between our transport and js-libp2p: calling back, and straight links.

js-libp2p takes none of this for granted at addresses that are not public, so the lab's machines get such as well.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from factories import key
from integration.net_js.pier import js_peer, node_program
from integration.net_nat.aside import Relaying, Thread
from integration.net_nat.lab import Lab, Place, require_lab
from lading_net.direct import CallBack, DirectTransport, Puncher, ask_to_be_called

pytestmark = pytest.mark.timeout(120)
HUB, JS, OURS = "45.83.0.1", "45.83.0.2", "45.83.0.3"
JS_LISTENS = f"/ip4/{JS}/tcp/4200"
JS_ADDRESS = key("javascript").address
SECONDS = 20.0


@pytest.fixture(scope="module")
def program() -> str:
    return node_program()


def also(place: Place, address: str) -> Place:
    subprocess.run(place.command("ip", "address", "add", f"{address}/24", "dev", "wan"), check=True)
    return place


class Hub(Relaying):
    """It also calls back."""

    def __init__(self, place: Place) -> None:
        super().__init__(place, HUB, key("hub"), lambda mine: CallBack(mine.handle, mine.stranger).open())


@contextmanager
def world() -> Iterator[tuple[Lab, Hub, Place]]:
    """The lab, our hub in it, and a place for js-libp2p."""
    require_lab()
    with Lab() as lab:
        place = also(lab.public("js", "203.0.113.2"), JS)
        hub = Hub(also(lab.public("hub", "203.0.113.1"), HUB))
        try:
            yield lab, hub, place
        finally:
            hub.close()


def theirs(**given: Any) -> dict[str, Any]:
    return {"secret": key("javascript").secret.hex(), **given}


def says(peer: subprocess.Popen[str], wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The first line that is wanted; the test's own time limit ends the wait."""
    assert peer.stdout is not None
    heard: list[dict[str, Any]] = []
    for line in peer.stdout:
        heard.append(json.loads(line))
        if wanted(heard[-1]):
            return heard[-1]
    raise AssertionError(f"js-libp2p ended; it said {heard}")


async def linked_straight(transport: DirectTransport) -> bool:
    """Whether js-libp2p and we get a link with nobody between, in time."""
    met = asyncio.Event()
    transport.on_link(lambda link: met.set() if transport.link_to(JS_ADDRESS) is not None else None)
    try:
        async with asyncio.timeout(SECONDS):
            await met.wait()
    except TimeoutError:
        return False
    return True


def test_it_hears_from_us_that_it_can_be_called(program: str) -> None:
    with world() as (_, hub, place):
        given = theirs(listen=JS_LISTENS, dial=[hub.where])
        with js_peer(program, "home.mjs", given, *place.command()) as (first, peer):
            assert JS not in first
            assert JS in says(peer, lambda told: JS in told.get("addresses", ""))["addresses"]


def test_we_hear_from_it_why_we_cannot_be_called(program: str) -> None:
    """Its yes cannot be had: it calls nobody who is linked to it already, and closes that link instead of answering."""

    async def ask() -> list[tuple[str, str]]:
        transport = DirectTransport(key("ours"))
        await transport.listen(f"/ip4/{OURS}/tcp/4300")
        link = await transport.dial(JS_LISTENS, JS_ADDRESS)
        asked = [f"/ip4/{HUB}/tcp/4300", "/ip4/10.0.0.1/tcp/4300"]
        answers = [await ask_to_be_called(link, transport.peer_id, [one]) for one in asked]
        await transport.close()
        return [(one.endpoint, one.why) for one in answers]

    with world() as (lab, _, place), js_peer(program, "home.mjs", theirs(listen=JS_LISTENS), *place.command()):
        ours = also(lab.public("ours", "203.0.113.3"), OURS)
        assert Thread(ours, ask).result() == [("", "no dialable addresses")] * 2


def test_it_makes_a_relayed_link_straight(program: str) -> None:
    """It is called by relay and calls back, as our end says where it listens."""
    way = ""

    async def call() -> tuple[bool, bool]:
        transport = DirectTransport(key("ours"))
        Puncher(transport).open()
        await transport.listen(f"/ip4/{OURS}/tcp/4300")
        link = await transport.dial(way)
        straight = await linked_straight(transport)
        await transport.close()
        return link.relayed, straight

    with world() as (lab, hub, place):
        ours = also(lab.public("ours", "203.0.113.3"), OURS)
        with js_peer(program, "home.mjs", theirs(listen=f"{hub.where}/p2p-circuit"), *place.command()) as (way, _):
            assert Thread(ours, call).result() == (True, True)


def test_we_make_a_relayed_link_of_it_straight(program: str) -> None:
    """It calls a home of ours by relay; the home's router keeps ports, and it says where it listens in DCUtR."""
    with world() as (lab, hub, place):
        home = lab.home("home", "restricted", "203.0.113.10")
        also(lab.places["homer"], "45.83.0.10")
        ready, way = threading.Event(), [""]

        async def serve() -> tuple[bool, str]:
            transport = DirectTransport(key("ours"))
            Puncher(transport).open()
            (way[0],) = (await transport.reserve(await transport.dial(hub.where))).endpoints
            ready.set()
            straight = await linked_straight(transport)
            link = transport.link_to(JS_ADDRESS)
            seen = str(link.seen_at[0]) if link is not None and link.seen_at is not None else ""
            await transport.close()
            return straight, seen

        served = Thread(home, serve)
        assert ready.wait(10)
        given = theirs(listen=JS_LISTENS, dial=[hub.where], later=way[0])
        with js_peer(program, "home.mjs", given, *place.command()):
            assert served.result() == (True, JS)
