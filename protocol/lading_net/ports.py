"""The doors to the network: what a program may ask of it, whichever network is behind.

Two ports. `Transport` carries streams between two peers (direct link, in-memory network); `Gossip` carries small
adverts to everyone (libp2p, in-memory network). This module knows no socket, no encryption and no wire format; every
failure it names is declared in `lading_net.errors`. One thread, one event loop: no port may be called from another.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from typing import Protocol

from lading_protocol.ids import Address as Address
from lading_protocol.ids import AgentId


class Stream(Protocol):
    """One conversation under one protocol name: an ordered byte pipe each way, each way closed on its own."""

    @property
    def peer(self) -> Address:
        """Whom the other end has proved to be."""
        ...

    @property
    def protocol(self) -> str: ...

    async def read(self) -> bytes:
        """Whatever has arrived, at least one byte; b"" once the peer has closed its side and all was read.

        Raises StreamReset when the peer gave the stream up, LinkClosed when the link under it went away,
        UnknownProtocol when the peer does not serve this protocol. One reader at a time.
        """
        ...

    def poll(self) -> bytes | None:
        """What read() would give at once, or None where it would wait. Raises as read() does."""
        ...

    def watch(self, callback: Callable[[], None] | None) -> None:
        """Calls back whenever poll() has something new to say, from within the network's own turn; None ends that.
        What is there already is not told: poll first. One watcher or one read() at a time."""
        ...

    def write(self, data: bytes) -> None:
        """Queues data and returns at once; call drain() after it wherever the amount is not bounded by something else.

        Raises StreamReset or LinkClosed as read() does, StreamClosed after close(), BufferFull when the caller wrote
        far past the limit without draining.
        """
        ...

    async def drain(self) -> None:
        """Waits until little enough is queued that it is sensible to write more. Raises as read() does."""
        ...

    async def close(self) -> None:
        """Ends the write side once all that is queued is out; reading goes on. Safe to call twice, never raises."""
        ...

    def reset(self) -> None:
        """Drops both sides, and what is queued with them; the peer sees StreamReset. Safe to call at any time."""
        ...


class Link(Protocol):
    """A proven connection to one peer, over which either end opens streams, whoever dialled."""

    @property
    def peer(self) -> Address: ...

    @property
    def closed(self) -> asyncio.Event:
        """Set once, when the link is gone for whatever reason; wait on it to learn of a death."""
        ...

    async def open(self, protocol: str) -> Stream:
        """Returns as soon as data may be written; that the peer does not know the protocol may show at the first read.

        Raises LinkClosed, TooManyStreams, UnknownProtocol (when the peer's answer is awaited).
        """
        ...

    async def close(self) -> None:
        """Closes every stream of the link (their readers see LinkClosed) and then the link. Safe to call twice."""
        ...


StreamHandler = Callable[[Stream], Awaitable[None]]
LinkCallback = Callable[[Link], None]


class Transport(Protocol):
    """Where links come from. One per program and identity."""

    async def listen(self, endpoint: str) -> str:
        """Accepts links at a multiaddr such as /ip4/0.0.0.0/tcp/4101; returns it with the actual port and /p2p/ id.

        Port 0 takes any free port. May be called for several endpoints. Raises PortInUse, BadEndpoint, ListenFailed.
        """
        ...

    async def dial(self, endpoint: str, expect: Address | None) -> Link:
        """A live link to that peer: the one there already is, or a new one. Bounded in time.

        `expect` (or else the endpoint's /p2p/ part) is whom the peer must prove to be. Raises BadEndpoint, DialFailed,
        NetTimeout, WrongPeer, HandshakeFailed.
        """
        ...

    def handle(self, protocol: str, handler: StreamHandler) -> None:
        """Serves a protocol on every link, old and new. A handler that raises resets its stream, one that returns
        closes it."""
        ...

    def on_link(self, callback: LinkCallback) -> None:
        """Calls back for every new link, dialled or accepted; a callback must not block."""
        ...

    def links(self, peer: Address | None = None) -> list[Link]:
        """The live links, one per peer; or only the one to `peer`."""
        ...

    async def close(self) -> None:
        """Stops listening, closes every link and ends every running handler. Safe to call twice."""
        ...


class Gossip(Protocol):
    """Small adverts to whoever listens; may arrive late, twice, or never, and from anyone: check what they say."""

    async def publish(self, topic: str, data: bytes) -> None:
        """Raises MessageTooLarge, LinkClosed once closed."""
        ...

    def subscribe(self, topic: str) -> AsyncIterator[bytes]:
        """What others publish from now on; ends when the port closes. A reader that lags loses the oldest first."""
        ...

    def leave(self, topic: str) -> None:
        """Stops taking part in a topic until the next subscribe(): its readers end, and it costs nothing more."""
        ...

    def peers(self) -> list[Address]: ...

    def provide(self, agents: Collection[AgentId], endpoints: Sequence[str]) -> None:
        """From now on, those who ask for a host of these agents hear of us at these direct endpoints."""
        ...

    async def close(self) -> None: ...
