"""Which ways lead to this node from outside, and which of them its offers name.

Asks every coordinator to call back, asks the router to open a port, and takes a place at coordinators that relay where
neither helps. A link that we dialled ourselves needs none of this. Says in words why a way is closed.
"""

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Callable

import msgspec

from lading_net.direct import DirectLink, DirectTransport, Reservation, ask_to_be_called
from lading_net.errors import BadEndpoint, NetError
from lading_net.peer import Endpoint
from lading_net.ports import Link
from lading_net.upnp import NoRouter, Router, find_router
from lading_protocol.ids import Address

log = logging.getLogger(__name__)

CHECK_SECONDS = 600.0
RETRY_SECONDS = 60.0
MAP_SECONDS = 3600
MOST_ENDPOINTS = 8  # of an offer


class Way(msgspec.Struct, frozen=True):
    """One way in. `works` is None while nobody could tell; `why` is a sentence, `todo` what would help or ""."""

    name: str
    works: bool | None
    endpoint: str
    why: str
    todo: str = ""


class Reach:
    """`bound` is set once we listen; `changed` is called when `endpoints()` may differ."""

    def __init__(
        self, direct: DirectTransport | None, announce: tuple[str, ...], *, upnp: bool, changed: Callable[[], None]
    ) -> None:
        self.bound: tuple[str, ...] = ()
        self.seen: dict[Address, tuple[str, int]] = {}
        self.places: dict[Address, Reservation] = {}
        self.mapped = ""
        self._direct, self._announce, self._upnp, self._changed = direct, announce, upnp, changed
        self._reached: dict[Address, str] = {}
        self._why = "No coordinator has tried to call this node yet."
        self._no_map = "Not tried: this machine's address is its own." if upnp else "Switched off (upnp = false)."
        self._no_place = "No relay was asked: none is linked, or none is needed."
        self._again: set[asyncio.Event] = set()
        self.router_tried = asyncio.Event()

    def endpoints(self) -> tuple[str, ...]:
        """What offers name: straight ways that were proved, then those that may work nearby, then relays."""
        if self._announce:
            return self._announce
        proved = [one for one in self._reached.values() if not _is_loopback(one)]
        relayed = [] if self._reached else [each for place in self.places.values() for each in place.endpoints]
        return tuple(dict.fromkeys((*proved, *self.bound, *relayed)))[:MOST_ENDPOINTS]

    def ways(self) -> list[Way]:
        """All ways but the links that we dialled ourselves, which are presence's."""
        reached = next(iter(self._reached.values()), "")
        opened = self.mapped and self.mapped == reached
        direct = reached if not opened else ""
        todo = "Forward the port in your router and name it with --announce, or do without: see the other ways."
        known = bool(self._reached or self.seen)
        why = "" if direct else "The router had to open a port for it." if opened else self._why
        ways = [Way("direct", bool(direct) if known else None, direct, why, "" if reached else todo)]
        if opened or not direct:
            works = bool(opened) if self.mapped or not self._upnp or known else None
            why = "" if opened else (self._why if self.mapped else self._no_map)
            ways.append(Way("opened by the router", works, self.mapped, why, "" if opened else NoRouter.hint))
        ends = [each for place in self.places.values() for each in place.endpoints]
        ways.append(
            Way("relayed", bool(ends) if known else None, ends[0] if ends else "", "" if ends else self._no_place)
        )
        return ways

    async def run(self) -> None:
        """Keeps the router's port open, until cancelled."""
        wanted = self._direct is not None and self._upnp and not self._announce
        ports = [place.port for place in map(Endpoint.parse, self.bound) if wanted and _is_private(place.host)]
        router: Router | None = None
        try:
            while ports:
                try:
                    router = await find_router()
                    await self._open(router, ports[0])
                    pause = MAP_SECONDS / 2
                except NetError as error:
                    self.mapped, self._no_map, pause = "", error.message, CHECK_SECONDS
                self.router_tried.set()
                for again in self._again:
                    again.set()
                await asyncio.sleep(pause)
            self.router_tried.set()
            await asyncio.Event().wait()
        finally:
            if router is not None and self.mapped:
                await self._shut(router, ports[0])

    async def talk(self, link: Link) -> None:
        """While we are linked to a coordinator: find out whether it reaches us, and be reachable through it if not."""
        if not isinstance(link, DirectLink) or link.seen_at is None:
            return
        again = asyncio.Event()
        self._again.add(again)
        peer = Address(link.peer)
        try:
            while True:
                again.clear()
                pause = await self.look(link)
                try:
                    async with asyncio.timeout(pause):
                        await again.wait()
                except TimeoutError:
                    pass
        finally:
            self._again.discard(again)
            self.seen.pop(peer, None)
            self._reached.pop(peer, None)
            if self.places.pop(peer, None) is not None:
                self._changed()

    # Asking

    async def look(self, link: Link) -> float:
        """Once: does this coordinator reach us, and if not, does it relay? Returns seconds until the next look."""
        if not isinstance(link, DirectLink):
            return CHECK_SECONDS
        before, peer = self.endpoints(), Address(link.peer)
        pause = CHECK_SECONDS
        try:
            reached = await self._called(link, peer)
            if reached:
                self._reached[peer] = reached
                self.places.pop(peer, None)
            else:
                self._reached.pop(peer, None)
                pause = await self._take_place(link, peer)
        except NetError as error:
            self._why = f"A coordinator was asked to call back: {error.message}"
            pause = RETRY_SECONDS
        if self.endpoints() != before:
            self._changed()
        return pause

    async def _called(self, link: DirectLink, peer: Address) -> str:
        """Where the coordinator reaches us, or ""."""
        direct = self._direct
        assert direct is not None
        asked = list(self._announce or self.bound) + ([self.mapped] if self.mapped else [])
        answer = await ask_to_be_called(link, direct.peer_id, asked[:4])
        if answer.seen is not None:
            self.seen[peer] = answer.seen
        if not answer.endpoint and answer.seen is not None:
            outer = [_at(each, answer.seen[0], direct) for each in self.bound]
            if wanted := [each for each in dict.fromkeys(outer) if each not in asked]:
                answer = await ask_to_be_called(link, direct.peer_id, wanted[:4])
        if answer.endpoint:
            return str(msgspec.structs.replace(Endpoint.parse(answer.endpoint), peer=direct.peer_id))
        self._why = self._closed(answer.why)
        return ""

    def _closed(self, why: str) -> str:
        outside = next(iter(self.seen.values()), None)
        mine = {Endpoint.parse(each).host for each in self.bound}
        if outside is not None and outside[0] not in mine:
            where = (
                f"This machine is {', '.join(sorted(mine))} at home and {outside[0]} to the world: a router is between."
            )
            return f"{where} Calls from outside do not get through ({why.rstrip('.')})."
        return f"Calls from outside do not get through: {why.rstrip('.')}. A firewall may be between."

    async def _take_place(self, link: DirectLink, peer: Address) -> float:
        assert self._direct is not None
        try:
            place = await self._direct.reserve(link)
        except NetError as error:
            self._no_place = f"The coordinator relays nothing to us: {error.message}"
            self.places.pop(peer, None)
            return RETRY_SECONDS
        self.places[peer] = place
        return CHECK_SECONDS

    # The router

    async def _open(self, router: Router, port: int) -> None:
        await router.open_port(port, MAP_SECONDS)
        outside = await router.outside()
        assert self._direct is not None
        try:
            self.mapped = str(Endpoint.parse(f"/ip4/{outside}/tcp/{port}/p2p/{self._direct.peer_id}"))
        except BadEndpoint:
            self.mapped, self._no_map = "", f"The router opened a port and does not say where ({outside[:40]!r})."
        else:
            log.info("the router opened port %d at %s", port, outside)

    async def _shut(self, router: Router, port: int) -> None:
        try:
            await router.close_port(port)
        except NetError as error:
            log.debug("the router keeps the port open: %s", error)


def outward() -> str:
    """The address of this machine that others in its network see; no packet is sent. "" when there is no network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return ""
        return str(probe.getsockname()[0])


def reachable(bound: str, outward: str) -> str:
    """An endpoint that others can dial: nobody can dial the wildcard address."""
    place = Endpoint.parse(bound)
    if outward and place.host in ("0.0.0.0", "::"):
        kind = "ip6" if ":" in outward else "ip4"
        return str(msgspec.structs.replace(place, kind=kind, host=outward))
    return bound


def _at(endpoint: str, host: str, direct: DirectTransport) -> str:
    """The same port, where the world sees us."""
    kind = "ip6" if ":" in host else "ip4"
    return str(Endpoint(kind, host, Endpoint.parse(endpoint).port, direct.peer_id))


def _is_loopback(endpoint: str) -> bool:
    host = Endpoint.parse(endpoint).host
    return host.startswith("127.") or host == "::1"


def _is_private(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_private and not address.is_loopback
