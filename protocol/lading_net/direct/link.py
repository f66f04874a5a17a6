"""A live link: one yamux session over one sealed connection, with its streams, handlers and keep-alive.

Collects what its streams write and sends it once per turn of the event loop; hands on what arrives. Owns no socket: it
is given a pipe to write to and told what came. Everything runs on one event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Final, assert_never

from lading_net.core.places import place
from lading_net.core.quotas import Bucket
from lading_net.direct import multistream, noise, yamux
from lading_net.direct.pipe import Pipe
from lading_net.direct.pool import Pool
from lading_net.direct.settings import DirectSettings
from lading_net.direct.stream import DirectStream
from lading_net.errors import LinkClosed, NetError, NetTimeout, ProtocolViolation, StreamReset
from lading_net.peer import PeerId
from lading_net.ports import StreamHandler
from lading_protocol.ids import Address

_log = logging.getLogger(__name__)
_MESSAGES_A_TURN: Final = 8  # sealed at once before other callbacks get their turn: half a MiB
_MESSAGES_AT_CLOSE: Final = 64
_WORTH_ITS_OWN: Final = 8 * 1024  # bytes
_FEW: Final = 8
_ENDED_A_TURN: Final = 8
_CLOSE_PATIENCE: Final = 1.0
_MOST_EXCESS: Final = 1024  # streams and pings refused before the link is given up
_REST: Final = 0.002  # seconds between the turns of a peer that asked for too much: others' frames come through
_WOKEN_A_TURN: Final = 256  # readers; what arrives for the others meanwhile they get together


class DirectLink:
    """Implements ports.Link. Made by the socket once the peer is proven."""

    def __init__(
        self,
        remote: PeerId,
        dialled: bool,
        keys: tuple[noise.Sealer, noise.Opener],
        pipe: Pipe,
        handler_of: Callable[[str], StreamHandler | None],
        settings: DirectSettings,
        pool: Pool,
    ) -> None:
        self.peer_id, self.dialled = remote, dialled
        self._peer = remote.address
        self.relayed = False  # for the transport to set: the pipe runs through somebody else
        self._closed = asyncio.Event()
        self.draining: set[DirectStream] = set()
        self._loop = asyncio.get_running_loop()
        self._pipe, self._handler_of, self._settings, self._pool = pipe, handler_of, settings, pool
        self._counted = 0  # of the pool's bytes, those that are ours
        self._counted_rest = (0, 0)  # and of what it counts now and then
        pool.links.add(self)
        self._session = yamux.Session(dialled, settings.limits, self._admits)
        self._seal, self._open = keys[0].seal, keys[1].receive
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._error: LinkClosed | None = None
        self._when_over: Callable[[DirectLink], None] | None = None
        self._flush_due = self._held_up = self._asked = self._retired = False
        self._turn_due = self._paused = False  # more is to be looked at; meanwhile nothing is read
        self._due: deque[DirectStream] = deque()  # something has arrived for their readers
        self._may_wake = _WOKEN_A_TURN
        self._heard = True
        self._heard_at = 0.0
        self._bare = 0.0  # seconds without a stream
        self._pings = Bucket(settings.pings, self._loop.time())
        self._machine = b""  # at the other end, as far as we see
        self.violated = False  # the protocol, by the peer
        self.excess = 0  # streams and pings of the peer that were too fast or too many; forgotten by halves
        self._timer = self._loop.call_later(settings.keepalive, self._tick)

    @property
    def peer(self) -> Address:
        return self._peer

    @property
    def closed(self) -> asyncio.Event:
        return self._closed

    @property
    def seen_at(self) -> tuple[str, int] | None:
        """The address and port at the other end of the connection; None where a relay stands between."""
        told = self._pipe.get_extra_info("peername")
        return (str(told[0]), int(told[1])) if told else None

    @property
    def reached_at(self) -> str:
        """This end's own address on the connection; "" where a relay stands between."""
        told = self._pipe.get_extra_info("sockname")
        return str(told[0]) if told else ""

    @property
    def queued(self) -> int:
        """Bytes that streams wrote and that have not left yet."""
        return self._session.queued

    @property
    def unread(self) -> int:
        """Bytes that arrived and that nobody has read yet."""
        return self._session.unread

    async def open(self, protocol: str) -> DirectStream:
        session = self._session
        if not session.may_open:
            await self._wait_for_turn()
        if self._error is not None:
            raise LinkClosed(self._error.message)
        flow = session.open()
        flow.bulk = protocol in self._settings.bulk
        stream = flow.owner = DirectStream(self, flow, protocol, multistream.Dialler(protocol))
        self.send(flow, multistream.proposal(protocol))
        return stream

    async def close(self) -> None:
        self._finish("The link was closed from this side.")
        try:
            async with asyncio.timeout(_CLOSE_PATIENCE):
                await self._closed.wait()
        except TimeoutError:
            self._pipe.abort()

    @property
    def lost(self) -> bool:
        """True from the moment the link can carry nothing more."""
        return self._error is not None

    @property
    def idle(self) -> bool:
        """No stream is open at either end."""
        return not self._session.flows

    def when_over(self, callback: Callable[[DirectLink], None]) -> None:
        self._when_over = callback

    def retire(self) -> None:
        """Another link to the same peer took over: close this one when its last stream is done."""
        self._retired = True

    def turn_away(self, why: str) -> None:
        """Ends the link in good order, streams and all."""
        self._finish(why)

    def probe(self) -> None:
        """Asks the peer for a sign of life now; without one the link is given up soon."""
        if self._error is None:
            self._heard, self._asked = False, True
            self._session.ping()
            self._wake()
            self._loop.call_later(self._settings.probe, self._missed)

    async def end_handlers(self) -> None:
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_CLOSE_PATIENCE)

    # -- called by the socket

    def data_received(self, data: bytes | memoryview) -> None:
        if self._error is not None:
            return
        self._heard = True
        if (now := self._loop.time()) != self._heard_at:  # uvloop's clock stands still within a turn
            self._heard_at = now
            self._session.rest()
        try:
            self._happened(self._open(data))
        except NetError as error:
            self._abandon(error)

    def first_received(self, plaintext: bytes) -> None:
        """What arrived together with the end of the upgrade."""
        try:
            self._happened([plaintext])
        except NetError as error:
            self._abandon(error)

    def _happened(self, messages: list[bytes]) -> None:
        """Wakes readers once for what came together. A full socket is read in a row: the rest has a turn made here."""
        session, apply = self._session, self._apply
        for message in messages:
            for event in session.receive(message):
                apply(event)
        for flow in session.forgotten:  # flow and stream hold each other: else only the collector would part them
            flow.owner = None
        session.forgotten.clear()
        self._wake_readers()
        if (session.held_up or self._due) and not self._turn_due:
            self._turn_due = True
            self._loop.call_later(_REST, self._go_on) if self.excess else self._loop.call_soon(self._go_on)
        if session.held_up is not self._paused and self._error is None:
            self._paused = session.held_up
            (self._pipe.pause_reading if self._paused else self._pipe.resume_reading)()
        self._count()
        if self._pool.unread > self._pool.most:
            self._pool.relieve()
        if session.has_output:
            self._wake()
        if self._waiting:
            self._admit()

    def _go_on(self) -> None:
        """Looks at more of what arrived, now that others had their turn."""
        self._turn_due, self._may_wake = False, _WOKEN_A_TURN
        if self._error is not None:  # whose end wakes them all
            return
        try:
            for event in self._session.go_on():
                self._apply(event)
            self._happened([])
        except NetError as error:
            self._abandon(error)

    def _wake_readers(self) -> None:
        due = self._due
        while due and self._may_wake:
            self._may_wake -= 1
            due.popleft().wake()

    def _apply(self, event: yamux.Event) -> None:
        match event:
            case yamux.Received(flow, payload):
                stream: DirectStream = flow.owner
                if stream.arrived(payload):
                    self._due.append(stream)
            case yamux.Opened(flow):
                flow.owner = DirectStream(self, flow, "", multistream.Listener(self._serves))
                self.send(flow, multistream.HELLO)
            case yamux.Ended(flow):
                if flow.owner.ended():
                    self._due.append(flow.owner)
            case yamux.Dropped(flow, ours):
                why = "Too much arrived that was not read" if ours else "The peer reset the stream"
                flow.owner.fail(StreamReset(f"{why}."))
            case yamux.GoneAway(code):
                _log.debug("peer 0x%s takes no more streams (code %d)", self._peer.hex(), code)
            case _:
                assert_never(event)

    @property
    def machine(self) -> bytes:
        """The place at the other end, as far as we see; of a relayed link, the peer."""
        if not self._machine:
            self._machine = place(self.seen_at[0]).machine if self.seen_at else self._peer
        return self._machine

    def _admits(self, stream: bool) -> bool:
        """Asked before anything is made for a stream, or a ping is answered."""
        now, limits = self._loop.time(), self._settings.limits
        if stream:
            self._count_rest()
            if self._pool.admits(self._session.accepted, limits.streams, self.machine, now):
                return True
        elif self._pings.take(now):
            return True
        else:
            self._pool.refused["pings"] += 1
        self.excess += 1
        self._session.patience = yamux.LEAST_EFFORT
        if self.excess >= _MOST_EXCESS:
            raise ProtocolViolation("The peer opens streams or pings without end.")
        return False

    def _count(self) -> None:
        """Keeps the pool's sum in step with what is unread here."""
        unread = self._session.unread
        self._pool.unread += unread - self._counted
        self._counted = unread

    def _count_rest(self) -> None:
        """The same for what is unsent, and for the peer's streams: when it matters, not with every frame."""
        (queued, streams), session = self._counted_rest, self._session
        self._counted_rest = session.queued, session.accepted
        self._pool.queued += session.queued - queued
        self._pool.streams += session.accepted - streams

    def shed(self) -> None:
        """Gives up the stream whose reader is furthest behind."""
        self._apply(self._session.shed())
        self._count()
        self._wake()

    def shed_queued(self) -> None:
        """Gives up the stream that has the most to send."""
        flow = max(self._session.flows.values(), key=lambda each: each.queued)
        self._session.reset(flow)
        if flow.owner is not None:
            flow.owner.fail(StreamReset("The peer did not take what was written."))
        self._count_rest()
        self._wake()

    def pause_writing(self) -> None:
        self._held_up = True

    def resume_writing(self) -> None:
        self._held_up = False
        self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        reason = f": {error}" if error else ""
        self._end(LinkClosed(f"The connection to the peer was lost{reason}."))
        self._closed.set()

    # -- called by streams

    def send(self, flow: yamux.Flow, data: bytes) -> None:
        self._session.send(flow, data)
        if not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._flush)

    def finish(self, flow: yamux.Flow) -> None:
        self._session.finish(flow)
        self._wake()

    def reset(self, flow: yamux.Flow) -> None:
        if self._error is None:
            self._session.reset(flow)
            self._count()
            self._wake()

    def consumed(self, flow: yamux.Flow, size: int) -> None:
        self._session.consume(flow, size)
        if self._error is not None:
            return
        self._count()
        if self._session.has_output:
            self._wake()

    def serve(self, stream: DirectStream) -> None:
        handler = self._handler_of(stream.protocol)
        if handler is None:  # withdrawn since it was agreed
            stream.reset()
            return
        stream.flow.bulk = stream.protocol in self._settings.bulk
        task = self._loop.create_task(self._run(stream, handler))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- inside

    def _serves(self, protocol: str) -> bool:
        return self._handler_of(protocol) is not None

    async def _run(self, stream: DirectStream, handler: StreamHandler) -> None:
        try:
            await handler(stream)
            await stream.close()
            stream.abandoned = True
        except NetError as error:
            _log.debug("stream %s of 0x%s ended: %s", stream.protocol, self._peer.hex(), error.message)
            stream.reset()
        except Exception:
            _log.exception("the handler of %s failed", stream.protocol)
            stream.reset()
        except BaseException:
            stream.reset()
            raise

    def _wake(self) -> None:
        if not self._flush_due and self._error is None:
            self._flush_due = True
            self._loop.call_soon(self._flush)

    def _flush(self, most: int = _MESSAGES_A_TURN) -> None:
        self._flush_due = False
        if self._error is not None:
            return
        if self._held_up:  # then what is written stays here, and may become too much
            self._count_rest()
            if self._pool.queued > self._pool.most_queued:
                self._pool.relieve()
            return
        take, seal = self._session.take, self._seal
        pieces: list[bytes] = []
        while most and (frames := take(noise.MAX_PLAINTEXT)):
            most -= 1
            if 1 < len(frames) <= _FEW and len(frames[1]) >= _WORTH_ITS_OWN:
                for frame in frames:  # a header, much data: one more seal is cheaper than to copy them together
                    pieces += seal(frame)
            else:
                pieces += seal(b"".join(frames))
        if pieces:
            self._pipe.writelines(pieces)
        if not most:
            self._wake()
        if self.draining:
            for stream in list(self.draining):
                stream.drain_if_low()

    async def _wait_for_turn(self) -> None:
        try:
            async with asyncio.timeout(self._settings.open_timeout):
                while not self._session.may_open and self._error is None:
                    turn: asyncio.Future[None] = self._loop.create_future()
                    self._waiting.append(turn)
                    await turn
        except TimeoutError:
            raise NetTimeout("The peer has not answered the streams opened before this one.") from None
        finally:
            self._waiting = deque(turn for turn in self._waiting if not turn.done())

    def _admit(self) -> None:
        free = self._settings.limits.unacknowledged - self._session.unacknowledged
        while self._waiting and free > 0:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                free -= 1

    def _tick(self) -> None:
        if not self._heard:
            if self._asked:
                self._abandon(NetTimeout(f"The peer was silent for {2 * self._settings.keepalive:.0f} s."))
                return
            self._asked = True
            self._session.ping()
            self._wake()
        else:
            self._asked = False
        self._heard = False
        self._sweep()
        self._count_rest()
        self.excess //= 2
        if not self.excess:
            self._session.patience = yamux.EFFORT
        self._bare = 0.0 if self._session.flows else self._bare + self._settings.keepalive
        if self._retired and not self._session.flows:
            self._finish("Another link to the same peer took over.")
            return
        if self._bare > self._settings.idle:
            self._finish("Nobody had any use for the link.")
            return
        self._timer = self._loop.call_later(self._settings.keepalive, self._tick)

    def _missed(self) -> None:
        if not self._heard and self._error is None:
            self._abandon(NetTimeout("The peer has another link to us and is silent on this one."))

    def _sweep(self) -> None:
        """Gives up streams whose handler is gone or whose protocol was never agreed, one to two periods after."""
        for flow in list(self._session.flows.values()):
            stream: DirectStream = flow.owner
            if stream.abandoned or stream.negotiating:
                stream.sweeps += 1
                if stream.sweeps > 1:
                    self._session.reset(flow)
                    stream.fail(NetTimeout("The peer left the stream unfinished for too long."))

    def _finish(self, why: str) -> None:
        if self._error is None:
            self._session.go_away()
            self._flush(_MESSAGES_AT_CLOSE)
            self._end(LinkClosed(why))
            self._pipe.close()

    def _abandon(self, error: NetError) -> None:
        _log.debug("link to 0x%s given up: %s", self._peer.hex(), error.message)
        self.violated = isinstance(error, ProtocolViolation)
        self._wake_readers()  # what came before counts
        self._end(LinkClosed(f"The link was given up: {error.message}"))
        self._pipe.abort()

    def _fail(self, flows: deque[yamux.Flow], error: LinkClosed) -> None:
        """A crowd of streams ends over several turns: each may have a handler that wakes."""
        for _ in range(min(_ENDED_A_TURN, len(flows))):
            flow = flows.popleft()
            if flow.owner is not None:  # None when the peer broke the protocol in the same breath
                flow.owner.fail(error, keep_arrived=True)
        if flows:
            self._loop.call_soon(self._fail, flows, error)

    def _end(self, error: LinkClosed) -> None:
        if self._error is not None:
            return
        self._error = error
        self._timer.cancel()
        self._pool.unread -= self._counted
        self._pool.queued -= self._counted_rest[0]
        self._pool.streams -= self._counted_rest[1]
        self._pool.links.discard(self)
        if self._when_over is not None:
            self._when_over(self)
        self._fail(deque(self._session.flows.values()), error)
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
