"""The asyncio side of the libp2p host: the Gossip port, and the thread in which the library runs.

Owns the thread's life: it starts it, restarts the host should the library fall over, and ends it. Knows no trio.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

import msgspec

from lading_net.errors import BadEndpoint, LinkClosed, ListenFailed, MessageTooLarge, NetError
from lading_net.libp2p.handover import Handover
from lading_net.peer import Endpoint, PeerId
from lading_net.ports import Address
from lading_net.private import NetworkKey
from lading_net.subscription import MAX_GOSSIP_BYTES, Subscription, Subscriptions
from lading_protocol.keys import PrivateKey

if TYPE_CHECKING:
    from lading_net.libp2p.host import Host
    from lading_net.libp2p.lan import Lan

INBOX = 4_096
CLOSING_SECONDS = 5.0
RESTART_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0)

T = TypeVar("T")

log = logging.getLogger(__name__)


class Secret(Protocol):
    """Anything that holds an operator key, such as `lading_protocol.keys.PrivateKey`."""

    @property
    def secret(self) -> bytes: ...


class Settings(msgspec.Struct, frozen=True):
    """What the host needs to know. `max_peers` is how many peers discovery connects to on its own."""

    secret: bytes
    listen: Endpoint
    bootstrap: tuple[Endpoint, ...]
    announce: tuple[Endpoint, ...]
    max_peers: int
    network: NetworkKey | None = None


class Libp2pGossip:
    """A libp2p host that gossips. `bootstrap` needs one reachable peer; the others are found through it.

    `announce` replaces the addresses told to others, for a host behind a port forwarding or in a container. With a
    `network` key it is a member of this private network, and of no other. `lan` is this machine's address in a local
    network where peers are looked for by multicast, "" for none.
    Raises BadEndpoint for an address without a meaning.
    """

    def __init__(
        self,
        secret: Secret | bytes,
        listen: str,
        bootstrap: Sequence[str] = (),
        *,
        announce: Sequence[str] = (),
        max_peers: int = 16,
        lan: str = "",
        network: NetworkKey | None = None,
    ) -> None:
        key = PrivateKey(secret if isinstance(secret, bytes) else secret.secret)
        self.peer_id = PeerId.from_public_key(key.public_key)
        self._settings = Settings(
            secret=key.secret,
            listen=Endpoint.parse(listen),
            bootstrap=tuple(_with_peer(text) for text in bootstrap),
            announce=tuple(Endpoint.parse(text) for text in announce),
            max_peers=max_peers,
            network=network,
        )
        self._readers = Subscriptions()
        self._topics: dict[str, None] = {}
        self._peers: tuple[str, ...] = ()
        self._address = ""
        self._lan_address = lan
        self._lan: Lan | None = None
        self._host: Host | None = None
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()

    @property
    def address(self) -> str:
        """The full multiaddr, with the port that was bound and /p2p/; empty before start()."""
        return self._address

    @property
    def lost(self) -> int:
        """Messages that arrived faster than this program took them, and were dropped."""
        return self._inbox.lost if self._thread is not None else 0

    async def start(self) -> None:
        """Brings the host up; returns once it listens, without waiting for any peer. Raises PortInUse, ListenFailed."""
        if self._thread is not None:
            raise LinkClosed("The gossip host was started before.")
        self._loop = asyncio.get_running_loop()
        self._inbox: Handover[tuple[str, bytes]] = Handover(INBOX, self._on_loop, self._received)
        self._started: asyncio.Future[str] = self._loop.create_future()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._run, name="libp2p", daemon=True)
        self._thread.start()
        try:
            self._address = await asyncio.shield(self._started)
        except BaseException:
            await self.close()
            raise
        if self._lan_address:
            await self._look_nearby()

    async def _look_nearby(self) -> None:
        from lading_net.libp2p.lan import Lan

        mine = Endpoint("ip4", self._lan_address, Endpoint.parse(self._address).port, self.peer_id)
        lan = Lan(mine, self._meet)
        try:
            await lan.open()
        except OSError as error:
            log.info("peers nearby are not looked for: %s", error)
            return
        self._lan = lan

    def _meet(self, endpoint: Endpoint) -> None:
        if self._host is not None:
            log.info("a peer is nearby: %s", endpoint)
            self._host.meet(endpoint)

    async def publish(self, topic: str, data: bytes) -> None:
        if self._closing.is_set() or self._host is None:
            raise LinkClosed("This peer has left the gossip network.")
        if len(data) > MAX_GOSSIP_BYTES:
            raise MessageTooLarge(f"{len(data)} bytes are too many for gossip; the limit is {MAX_GOSSIP_BYTES}.")
        self._host.publish(topic, bytes(data))

    def subscribe(self, topic: str) -> Subscription:
        if topic not in self._topics:
            self._topics[topic] = None
            if self._host is not None:
                self._host.subscribe(topic)
        return self._readers.add(topic)

    def leave(self, topic: str) -> None:
        self._readers.leave(topic)
        if self._topics.pop(topic, True) is None and self._host is not None:
            self._host.leave(topic)

    def peers(self) -> list[Address]:
        """The connected peers that have an address; a libp2p peer with another kind of key has none and is left out."""
        found = []
        for text in self._peers:
            try:
                found.append(PeerId.from_text(text).address)
            except BadEndpoint:
                continue
        return found

    async def close(self) -> None:
        self._closing.set()
        self._readers.close()
        self._peers = ()
        if self._lan is not None:
            await self._lan.close()
            self._lan = None
        if self._thread is None:
            return
        if self._host is not None:
            self._host.stop()
        if not self._ended.done():
            await asyncio.wait([self._ended], timeout=CLOSING_SECONDS)
        if self._ended.done():
            self._thread.join()
        else:
            log.error("the libp2p thread did not end within %g s; it is left behind", CLOSING_SECONDS)
        if self._started.done() and not self._started.cancelled():
            self._started.exception()

    # In the thread

    def _run(self) -> None:
        try:
            self._serve()
        except ImportError as error:
            hint = "Install it with: pip install 'lading[libp2p]'"
            self._fail(ListenFailed(f"py-libp2p cannot be imported ({error}).", hint=hint))
        finally:
            self._fail(ListenFailed("The libp2p host was stopped before it listened."))
            self._on_loop(lambda: _settle(self._ended, None))

    def _serve(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # the library's own imports are not ours to mend
            # Imported here: it takes a second, which the program's start should not wait for.
            from lading_net.libp2p.host import Host
        failures = 0
        while not self._closing.is_set():
            host = self._host = Host(self._settings, self)
            if self._closing.is_set():  # close() may have looked for the host just before
                return
            try:
                host.run()
                return
            except Exception as error:
                known = _net_error(error)
                if not self._address:
                    if known is None:
                        log.exception("the libp2p host does not start")
                    self._fail(known or ListenFailed(f"The libp2p host does not start: {error!r}"))
                    return
                log.error("the libp2p host fell over and starts again", exc_info=error)
            pause = RESTART_SECONDS[min(failures, len(RESTART_SECONDS) - 1)]
            failures += 1
            self._closing.wait(pause)

    def _fail(self, error: NetError) -> None:
        self._on_loop(lambda: None if self._started.done() else self._started.set_exception(error))

    def _on_loop(self, call: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(call)
        except RuntimeError:  # the program's loop is closed: nobody listens any more
            self._closing.set()

    # What the host tells us, from its thread

    def listening(self, endpoint: Endpoint) -> None:
        self._settings = msgspec.structs.replace(self._settings, listen=endpoint)  # a restart keeps the port
        text = str(msgspec.structs.replace(endpoint, peer=self.peer_id))
        self._on_loop(lambda: _settle(self._started, text))

    def received(self, topic: str, data: bytes) -> None:
        self._inbox.put((topic, data))

    def connected(self, peers: tuple[str, ...]) -> None:
        self._peers = peers

    def subscriptions(self) -> tuple[str, ...]:
        return tuple(self._topics)

    # On the loop

    def _received(self, item: tuple[str, bytes]) -> None:
        self._readers.feed(*item)


def _with_peer(text: str) -> Endpoint:
    endpoint = Endpoint.parse(text)
    if endpoint.peer is None:
        raise BadEndpoint(f"The bootstrap address {text!r} does not say whose it is: it lacks /p2p/ and a peer id.")
    return endpoint


def _net_error(error: BaseException) -> NetError | None:
    """Our own error, if that is what is wrapped in the groups that trio makes."""
    if isinstance(error, BaseExceptionGroup):
        return next((found for each in error.exceptions if (found := _net_error(each)) is not None), None)
    return error if isinstance(error, NetError) else None


def _settle(future: asyncio.Future[T], result: T) -> None:
    if not future.done():
        future.set_result(result)
