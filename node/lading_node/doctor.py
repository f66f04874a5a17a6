"""Looks which ways lead to this machine, while no node runs on it: listens for a moment, and asks the coordinators.

Goes by a name made for the purpose, so that a node that runs elsewhere under the operator's key is not disturbed.
Decides nothing; the words about each way are those of `reach`.
"""

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import msgspec

from lading.clockwatch import Clockwatch
from lading_net.dialling import dial_any
from lading_net.direct import DirectSettings, DirectTransport
from lading_net.errors import NetError
from lading_net.ports import Link
from lading_net.private import NetworkKey
from lading_net.speech import agreed_with
from lading_node.reach import Reach, Way, reachable
from lading_protocol.ids import Address, to_hex
from lading_protocol.keys import PrivateKey

DIAL_SECONDS = 5.0
LOOK_SECONDS = 25.0


class Diagnosis(msgspec.Struct, frozen=True):
    """`kind` says in words what stands between this machine and the world; `healthy`: work can reach it by some way.
    `clock` says in words what seems to be wrong with this machine's time."""

    healthy: bool
    address: str
    outside: str
    kind: str
    ways: tuple[Way, ...]
    clock: str = ""


class Looked(msgspec.Struct, frozen=True):
    """What a look needs: multiaddrs, this machine's address in its own network ("" for none), whether to try UPnP, the
    key of a private network, and this machine's time (Unix seconds)."""

    listen: tuple[str, ...]
    announce: tuple[str, ...]
    coordinators: tuple[str, ...]
    outward: str
    upnp: bool
    network: NetworkKey | None = None
    clock: Callable[[], float] = time.time


async def look(asked: Looked) -> Diagnosis:
    """Takes some seconds. Raises PortInUse where a node, or another program, listens already."""
    async with AsyncExitStack() as stack:
        transport = DirectTransport(PrivateKey(os.urandom(32)), DirectSettings(network=asked.network))
        stack.push_async_callback(transport.close)
        bound = [await transport.listen(each) for each in asked.listen]
        reach = Reach(transport, asked.announce, upnp=asked.upnp, changed=lambda: None)
        reach.bound = tuple(reachable(each, asked.outward) for each in bound)
        links, trouble = await _dial_all(transport, asked.coordinators)
        clock = await _ask_the_time(links, asked.clock)
        await _ask_all(reach, links)
        return msgspec.structs.replace(_diagnose(asked, reach, links, trouble), clock=clock)


async def _dial_all(transport: DirectTransport, coordinators: tuple[str, ...]) -> tuple[list[Link], list[str]]:
    """The links, and why others are missing."""
    dials = [dial_any(transport, (each,), None, DIAL_SECONDS) for each in coordinators]
    found = await asyncio.gather(*dials, return_exceptions=True)
    links, trouble = [], []
    for where, each in zip(coordinators, found, strict=True):
        if not isinstance(each, BaseException):
            links.append(each)
        elif isinstance(each, NetError):
            trouble.append(f"{where}: {each.message}")
        else:
            raise each
    return links, trouble


async def _ask_the_time(links: list[Link], clock: Callable[[], float]) -> str:
    """What is wrong with ours by the coordinators' clocks, in words."""
    watch = Clockwatch(clock, lambda peer: True, 1, "coordinators")
    await asyncio.gather(*(agreed_with(link, clock=watch) for link in links), return_exceptions=True)
    return watch.words


async def _ask_all(reach: Reach, links: list[Link]) -> None:
    """The router first, if it will open a port; then each coordinator once."""
    opening = asyncio.create_task(reach.run())
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            await reach.router_tried.wait()
            await asyncio.gather(*(reach.look(link) for link in links))
    except TimeoutError:
        pass  # what was found until now is told
    finally:
        opening.cancel()
        await asyncio.gather(opening, return_exceptions=True)


def _diagnose(asked: Looked, reach: Reach, links: list[Link], trouble: list[str]) -> Diagnosis:
    out = _dialled_out(asked, links, trouble)
    ways = (out, *reach.ways())
    seen = sorted({host for host, _ in reach.seen.values()})
    return Diagnosis(
        healthy=any(way.works for way in ways),
        address=asked.outward,
        outside=", ".join(seen),
        kind=_kind(asked.outward, reach),
        ways=ways,
    )


def _dialled_out(asked: Looked, links: list[Link], trouble: list[str]) -> Way:
    name = "dialled out"
    if links:
        ends = ", ".join(to_hex(Address(link.peer))[:10] for link in links)
        return Way(name, True, "", f"Linked to {len(links)} of {len(asked.coordinators)} coordinators ({ends}).")
    if not asked.coordinators:
        todo = "Name one with --coordinator, or in the settings file."
        return Way(name, None, "", "No coordinator is configured, so nothing could be asked.", todo)
    todo = "Check this machine's connection, and that a firewall lets TCP out to these ports."
    return Way(name, False, "", f"No coordinator answers. {'; '.join(trouble)}", todo)


def _kind(mine: str, reach: Reach) -> str:
    if not reach.seen:
        return "unknown: no coordinator says where it sees this machine"
    hosts = {host for host, _ in reach.seen.values()}
    return "none: the address is this machine's own" if hosts == {mine} else "a router that translates addresses"


def of_running(status: dict[str, Any]) -> Diagnosis:
    """What a running node says of itself (its status record), in the same words."""
    linked = [one for one in status["coordinators"] if one["linked"]]
    missing = [f"{one['endpoints'][0]}: {one['state']}" for one in status["coordinators"] if not one["linked"]]
    why = f"Linked to {len(linked)} of {len(status['coordinators'])} coordinators."
    out = Way("dialled out", bool(linked), "", why if linked else f"No coordinator is linked. {'; '.join(missing)}")
    ways = (out, *(msgspec.convert(one, Way) for one in status["ways"]))
    kind = "the node runs, and says this of itself"
    return Diagnosis(any(way.works for way in ways), "", "", kind, ways, status.get("clock", ""))
