"""Hosts at home, behind routers that let nobody in: they earn all the same, and go on after what befalls networks."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from factories import key
from integration.net_nat.lab import Place, require_lab
from integration.net_nat.loop import at
from integration.net_nat.town import Town, play
from lading.core.options import Options
from lading.dispatch import Purse
from lading.routes.peers import PeerRoute
from lading_net.direct import DirectLink, DirectTransport
from simulation.flow.answers import question, unbroken
from simulation.flow.people import Consumer

REQUEST = question(66, 72)
WHOLE = unbroken(REQUEST)


@pytest.fixture(autouse=True)
def _lab_needed() -> None:
    require_lab()


async def consumer(town: Town, name: str) -> Consumer:
    made = town.consumers[name] = Consumer(town, name)
    await made.settle_in()
    return made


async def post(town: Town, place: Place, api_key: str) -> Any:
    """A chat over HTTP from that place."""
    with at(place):
        async with httpx.AsyncClient(timeout=20) as http:
            return await http.post(
                f"{town.url}/v1/chat/completions",
                headers={"Authorization": f"Bearer {api_key}"},
                json={"model": "toy", "messages": [{"role": "user", "content": "of the sea"}], "max_tokens": 20},
            )


def test_homes_behind_different_routers_serve_a_consumer_behind_a_third(tmp_path: Path) -> None:
    async def story(town: Town) -> None:
        carla = await consumer(town, "carla")
        place = town.lab.home("carla", "restricted", "203.0.113.30", delay=0.01)
        for name in ("amber", "birch"):
            host = town.hosts[name]
            answer = await post(town, place, carla.api_key)
            assert answer.status_code == 200, answer.text
            assert answer.headers["x-lading-host"] == "0x" + host.address.hex()
            assert answer.json()["usage"]["completion_tokens"] > 0
            host.kill()  # the other one serves next

    play(story, tmp_path, {"amber": "restricted", "birch": "symmetric"})


def test_a_coordinator_dies_and_comes_back(tmp_path: Path) -> None:
    async def story(town: Town) -> None:
        carla = await consumer(town, "carla")
        assert (await carla.ask(REQUEST)).ids == WHOLE[1]
        await town.crash()
        await town.soon(lambda: not any(town.home_host(name).linked() for name in town.homes))
        await asyncio.sleep(1.0)  # some dials fail meanwhile
        states = [town.home_host(name).node.presence.coordinators[0].state for name in town.homes]
        assert all("Cannot connect" in state for state in states), states
        await town.restart_coordinator()
        await town.open_for_business()
        answer = await carla.ask(REQUEST)
        assert answer.ids == WHOLE[1], answer.error

    play(story, tmp_path, {"amber": "restricted", "birch": "symmetric"})


def test_the_network_splits_and_heals(tmp_path: Path) -> None:
    async def story(town: Town) -> None:
        carla = await consumer(town, "carla")
        job = carla.begin(REQUEST)
        await town.soon(lambda: len(town.hosts["amber"].made) > 0)
        await asyncio.sleep(0.3)
        town.lab.split(("hub", "birch"), ("amber",))
        answer = await job
        assert answer.ids == WHOLE[1], answer.error
        assert answer.moves  # it went on at birch
        await town.soon(lambda: town.choosable() == {town.hosts["birch"].address})
        town.lab.heal()
        await town.open_for_business()
        assert (await carla.ask(REQUEST)).ids == WHOLE[1]

    play(story, tmp_path, {"amber": "restricted", "birch": "full cone"}, token_patience=1.0)


def test_an_address_changes_amid_a_job(tmp_path: Path) -> None:
    async def story(town: Town) -> None:
        carla = await consumer(town, "carla")
        job = carla.begin(REQUEST)
        await town.soon(lambda: len(town.hosts["amber"].made) > 0)
        await asyncio.sleep(0.3)
        town.lab.move("amber", "203.0.113.77")
        began = time.monotonic()
        answer = await job
        assert answer.ids == WHOLE[1], answer.error
        assert answer.moves
        assert time.monotonic() - began < 6  # not by patience: the new link gave the old one away
        link = town.transport.link_to(town.hosts["amber"].address)
        assert link is not None
        assert link.seen_at is not None
        assert link.seen_at[0] == "203.0.113.77"

    play(story, tmp_path, {"amber": "restricted", "birch": "symmetric"})


def test_a_link_that_breaks_is_there_again_at_once(tmp_path: Path) -> None:
    """What is not the network's time is below 250 ms: bench-nat measures it."""

    async def story(town: Town) -> None:
        amber = town.hosts["amber"].address
        await asyncio.sleep(2.2)  # a link that did not hold is not dialled at once
        link = town.transport.link_to(amber)
        assert link is not None
        link._pipe.abort()
        await town.soon(lambda: amber not in town.choosable())
        assert await town.soon(lambda: amber in town.choosable()) < 1.0

    play(story, tmp_path, {"amber": "restricted"})


def test_a_job_from_home_to_home_through_a_relay(tmp_path: Path) -> None:
    """Consumer and host each behind a router that lets nobody in, peer to peer: the coordinator carries ciphertext."""

    async def story(town: Town) -> None:
        amber = town.home_host("amber")
        await town.soon(lambda: "/p2p-circuit/" in amber.node.endpoints[-1])
        offer = amber.node.agents[0].offer
        assert offer is not None
        assert offer.detail.endpoints == amber.node.endpoints
        assert [way.name for way in amber.node.reach.ways() if way.works] == ["relayed"]
        known = town.coordinator.directory
        await town.soon(lambda: any("/p2p-circuit/" in one.detail.endpoints[-1] for one in known.offers()))
        await consumer(town, "carla")
        with at(town.lab.home("carla", "symmetric", "203.0.113.30")):
            transport = DirectTransport(key("carla"))
            purse = Purse(tmp_path / "purse.sqlite", town.record.settlement_domain)
            route = PeerRoute(transport, town.contracts, key("carla"), [town.endpoint], purse)
            options = Options(max_tokens=20, seed=5)
            pieces = [piece async for piece in route.chat("toy", [("user", "of the sea")], options)]
        assert len(pieces) > 2
        link = next(link for link in transport.links() if link.peer == amber.address)
        assert isinstance(link, DirectLink)
        assert link.relayed
        assert town.relay is not None
        assert town.relay.carried > 1000
        await transport.close()
        purse.close()

    play(story, tmp_path, {"amber": "restricted"})


def test_who_has_an_address_of_its_own_needs_no_relay(tmp_path: Path) -> None:
    async def story(town: Town) -> None:
        amber = town.home_host("amber")
        await town.soon(lambda: amber.node.reach.ways()[0].works is True)
        assert amber.node.endpoints == (f"/ip4/203.0.113.10/tcp/4101/p2p/{amber.transport.peer_id}",)
        assert not amber.node.reach.places

    play(story, tmp_path, {"amber": None})
