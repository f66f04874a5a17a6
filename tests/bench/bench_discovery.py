"""How fast an offer is found, how fast a home's link is back, what a relay costs, and what all this costs a node.

Runs in network namespaces of its own, because it counts bytes and needs routers: root, `ip` and `nft`. What the model
says of large networks rests on constants measured here at 20 nodes, and is checked here at 50 and 100.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import math
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec

from integration.net_nat.lab import Lab, Place
from integration.net_nat.loop import NamespaceLoop, at
from integration.net_nat.town import Town, play
from lading_demo.devnet import AGENT, Devnet
from lading_net.direct import DirectLink, DirectTransport
from lading_net.ports import Stream
from lading_protocol.keys import PrivateKey

from .control_model import Constants, Sizes, gossiping, memory, traffic
from .gossip_crowd import OFFER, loopback_bytes, resident
from .processes import program, say_ready
from .report import say

SIZES = (20, 50, 100)
MODELLED = (100, 1_000, 10_000, 100_000)
IDLE_SECONDS = 15.0


# -- a devnet in a namespace of its own -------------------------------------------------------------------------------


async def be_devnet(count: int, rounds: int) -> None:
    """Says what a quiet network of so many hosts carries, and how long each of some new offers took to be known."""
    before = resident()
    async with Devnet(count) as net:
        held = resident() - before
        await asyncio.sleep(3.0)
        carried = loopback_bytes()
        await asyncio.sleep(IDLE_SECONDS)
        idle = (loopback_bytes() - carried) / IDLE_SECONDS / count
        delays = [await _found(net, nth) for nth in range(rounds)]
    say_ready({"hosts": count, "idle": idle, "memory": held, "delays": delays})


async def _found(net: Devnet, nth: int) -> float:
    """Seconds from a host's new offer until every coordinator can choose it."""
    await asyncio.sleep(0.01)
    agent = net.hosts[nth % len(net.hosts)].node.agents[0]
    began = time.perf_counter()
    agent.renew()
    assert agent.offer is not None
    wanted = agent.offer.id
    while any(all(known.id != wanted for known in each.directory.offers(AGENT)) for each in net.coordinators):  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    return time.perf_counter() - began


def in_namespace(place: Place, *arguments: str) -> Any:
    """What a program of ours says in its one line, run in a place of the lab."""
    command = place.command(sys.executable, *arguments)
    script = f"import os; os.execvp({command[0]!r}, {command!r})"
    with program("-c", script) as running:
        return running.facts


# -- in the lab -------------------------------------------------------------------------------------------------------


def failover(rounds: int) -> list[float]:
    """Milliseconds from the break of a home's link until the coordinator can choose the host again."""
    found: list[float] = []

    async def story(town: Town) -> None:
        amber = town.hosts["amber"].address
        for _ in range(rounds):
            await asyncio.sleep(2.1)  # a link that did not hold is not dialled at once
            link = town.transport.link_to(amber)
            assert link is not None
            began = time.perf_counter()
            link._pipe.abort()
            await town.soon(lambda: amber not in town.choosable())
            await town.soon(lambda: amber in town.choosable())
            found.append((time.perf_counter() - began) * 1e3)

    with tempfile.TemporaryDirectory() as folder:
        play(story, Path(folder), {"amber": "restricted"}, seconds=30 + 4 * rounds)
    return found


async def echo(stream: Stream) -> None:
    while data := await stream.read():
        stream.write(data)


async def round_trip(link: DirectLink, rounds: int) -> float:
    """Milliseconds, the median."""
    stream, spent = await link.open("/echo/1"), []
    for _ in range(rounds):
        began = time.perf_counter()
        stream.write(b"x")
        await stream.read()
        spent.append((time.perf_counter() - began) * 1e3)
    stream.reset()
    return statistics.median(spent)


async def relayed(lab: Lab, rounds: int) -> tuple[float, float]:
    """Milliseconds: a round trip from home to home by relay, and the sum of those from each home to the relay."""
    from lading_net.direct import Relay

    places = (lab.public("hub", "203.0.113.1"), *(_home(lab, nth) for nth in (1, 2)))
    hub, host, caller = (DirectTransport(PrivateKey(bytes([n]) * 32)) for n in (1, 2, 3))
    for each in (hub, host):
        each.handle("/echo/1", echo)
    with at(places[0]):
        where = await hub.listen("/ip4/203.0.113.1/tcp/4600")
        Relay(hub, lambda: (where,), time.time).open()
    with at(places[1]):
        near = await host.dial(where)
        (way,) = (await host.reserve(near)).endpoints
    with at(places[2]):
        other = await caller.dial(where)
        through = await caller.dial(way)
    ways = [await round_trip(link, rounds) for link in (near, other, through)]
    for each in (caller, host, hub):
        await each.close()
    return ways[2], ways[0] + ways[1]


def _home(lab: Lab, nth: int) -> Place:
    return lab.home(f"home{nth}", "restricted", f"203.0.113.{10 * nth}", delay=0.01)


# -- the rows ---------------------------------------------------------------------------------------------------------


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, round(share * len(values)))]


def show_homes(quick: bool) -> None:
    found = failover(3 if quick else 9)
    note = "the break is heard, the router's delay is 10 ms each way; until the host can be chosen again"
    say("home_link_failover_p50", statistics.median(found), "ms", bar="<= 250", n=len(found), note=note)
    say("home_link_failover_worst", max(found), "ms", n=len(found))
    with Lab() as lab, asyncio.Runner(loop_factory=NamespaceLoop) as runner:
        rounds = 20 if quick else 100
        by_relay, parts = runner.run(relayed(lab, rounds))
    name, note = "the two ways to the relay, one after the other", "two homes, 10 ms each way; one hop more"
    say("relayed_round_trip_p50", by_relay, "ms", reference=(name, parts), n=rounds, note=note)


def measure_devnets(sizes: tuple[int, ...]) -> list[dict[str, Any]]:
    found = []
    for size in sizes:
        with Lab() as lab:
            place = lab.public("here", "203.0.113.1")
            found.append(in_namespace(place, "-m", __spec__.name, "--devnet", str(size)))
    return found


def measure_crowd(*arguments: str) -> dict[str, Any]:
    with Lab() as lab:
        place = lab.public("here", "203.0.113.1")
        found: dict[str, Any] = in_namespace(place, "-m", "tests.bench.gossip_crowd", *arguments)
        return found


def show_by_link(net: dict[str, Any]) -> None:
    hosts, delays = net["hosts"], net["delays"]
    note = f"{hosts} hosts, 2 coordinators: until both can choose the offer"
    say(f"offer_by_link_{hosts}_p99", percentile(delays, 0.99), "s", bar="<= 2", n=len(delays), note=note)


def show_by_gossip(crowd: dict[str, Any]) -> None:
    """A lost one counts as late: the percentile is over all that should have come."""
    size, heard, wanted = crowd["hosts"], crowd["delays"], crowd["wanted"]
    lost = [math.inf] * (wanted - len(heard))
    cpu = 1e3 * crowd["cpu_per_offer"] / size
    note = f"{len(heard)} of {wanted} arrived; all hosts on this machine, {cpu:.1f} ms of CPU an offer and host"
    for name, share, bar in (("p99", 0.99, "<= 2"), ("p50", 0.5, None)):
        value = percentile(heard + lost, share)
        say(f"offer_by_gossip_{size}_{name}", value if value < math.inf else None, "s", bar=bar, n=wanted, note=note)
    say(f"gossip_{size}_joined", crowd["joined"], "s", note="all processes started and every host with 8 connections")


def show_traffic(nets: list[dict[str, Any]], crowds: list[dict[str, Any]]) -> None:
    """The constants come from the smallest network; the larger ones say whether they hold there."""
    least = crowds[0]
    spread, record = least["per_offer"] / OFFER, crowds[-1]["per_record"]
    constants = Constants(nets[0]["idle"] / 2, least["idle"] / least["connections"], spread, OFFER, record)
    for net in nets:
        expected = 2 * constants.beat
        say(f"links_{net['hosts']}", net["idle"], "B/s", reference=("the model", expected), note="2 coordinators, idle")
    for crowd in crowds:
        size, near = crowd["hosts"], crowd["connections"]
        note = f"{near:.0f} connections, idle"
        say(f"gossip_{size}", crowd["idle"], "B/s", reference=("the model", gossiping(near, 0.0, constants)), note=note)
        rate = crowd["offers_per_second"]
        told = gossiping(near, rate, constants)
        note = (
            f"{rate:.2f} offers a second; {crowd['per_offer'] / OFFER:.1f} bytes carried per byte that reaches a host"
        )
        say(f"gossip_{size}_with_offers", crowd["busy"], "B/s", reference=("the model", told), note=note)
    most = crowds[-1]
    note = f"carried once by each of {most['hosts']} hosts that tell who is near to an agent's key, all at once"
    say("provider_record", record / 1e3, "kB", note=note)
    for size in MODELLED:
        told = traffic(size, constants)
        note = ", ".join(f"{name} {value:.0f}" for name, value in msgspec.structs.asdict(told).items())
        bar = "<= 2000" if size == 100_000 else None
        say(f"control_traffic_{size}", told.total, "B/s", bar=bar, note=f"the model: {note}")


def show_memory(nets: list[dict[str, Any]], crowds: list[dict[str, Any]], parts: dict[str, float]) -> None:
    """A host's own part is what the largest network takes more than the smallest, whose chain and coordinators are the
    same; that of its gossip comes from its parts measured alone."""
    least, most = nets[0], nets[-1]
    host, rest = _line((least["hosts"], least["memory"]), (most["hosts"], most["memory"]))
    sizes = Sizes(host / 1e6, parts["host"] / 1e6, parts["link"] / 1e6, parts["offer"] / 1e6)
    for net in nets:
        told = (rest + net["hosts"] * host) / 1e6
        note = f"{net['hosts']} hosts with a chain and two coordinators; {host / 1e6:.2f} MB a host"
        say(f"memory_devnet_{net['hosts']}", net["memory"] / 1e6, "MB", reference=("the model", told), note=note)
    for crowd in crowds:
        told = memory(crowd["hosts"], sizes, crowd["connections"]).gossip
        note = f"a host, with {crowd['connections']:.0f} connections"
        say(f"memory_gossip_{crowd['hosts']}", crowd["memory"] / 1e6, "MB", reference=("the model", told), note=note)
    for size in MODELLED:
        told_all = memory(size, sizes)
        note = ", ".join(f"{name} {value:.2f}" for name, value in msgspec.structs.asdict(told_all).items())
        say(f"memory_{size}", told_all.total, "MB", note=f"the model: {note}")


def _line(first: tuple[float, float], last: tuple[float, float]) -> tuple[float, float]:
    """The slope and the beginning of the line through two points; all of it slope where they are one."""
    if first == last:
        return first[1] / first[0], 0.0
    slope = (last[1] - first[1]) / (last[0] - first[0])
    return slope, first[1] - slope * first[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--devnet", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    if chosen.devnet:
        asyncio.run(be_devnet(chosen.devnet, max(20, chosen.devnet)))
        return
    show_homes(chosen.quick)
    sizes = SIZES[:1] if chosen.quick else SIZES
    nets = measure_devnets(sizes)
    crowds = [measure_crowd(str(size)) for size in sizes]
    show_by_link(nets[-1])
    for crowd in crowds:
        show_by_gossip(crowd)
    show_traffic(nets, crowds)
    show_memory(nets, crowds, measure_crowd("--parts"))


if __name__ == "__main__":
    main()
