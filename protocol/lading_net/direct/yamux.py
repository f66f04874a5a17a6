"""yamux 1.0 without IO: many streams over one ordered byte pipe, each with its own flow control.

Bytes in, events out; what is to be sent is collected and taken in pieces as large as the caller can seal at once.
Streams that wait take turns, and what one stream wrote in small pieces leaves in one frame. Knows no socket, clock or
protocol name. See https://github.com/hashicorp/yamux/blob/master/spec.md.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from struct import Struct
from typing import Any, Final

import msgspec

from lading_net.errors import BufferFull, LinkClosed, ProtocolViolation, TooManyStreams

PROTOCOL: Final = "/yamux/1.0.0"
INITIAL_WINDOW: Final = 256 * 1024
HEADER_SIZE: Final = 12
_HEADER: Final = Struct(">BBHII")
_pack: Final = _HEADER.pack
_unpack_from: Final = _HEADER.unpack_from
_DATA: Final = 0
_WINDOW: Final = 1
_PING: Final = 2
_GO_AWAY: Final = 3
_SYN: Final = 1
_ACK: Final = 2
_FIN: Final = 4
_RST: Final = 8
_MAX_WINDOW: Final = 2**32 - 1
_LEAST_ROOM: Final = 4 * HEADER_SIZE  # a smaller rest is left alone, rather than splitting a large write for it
_MAX_CONTROL: Final = 1 << 16  # frames of 12 bytes that a peer can make us owe while it reads nothing
EFFORT: Final = 2048  # for a peer, before others get their turn
LEAST_EFFORT: Final = 512  # the same, for one that asked for too much. A frame with data costs 1 ...
_IDLE: Final = 16  # ... one that is of no use to us this ...
_OPENING: Final = 256  # ... and a stream, with the task that serves it
_TRIFLE: Final = 32  # bytes: data is of use from here on; a frame with a token is larger, as its hash alone is so long


class Limits(msgspec.Struct, frozen=True):
    """Sizes in bytes. What a peer can make us hold is at most `received` a link, whatever it sends."""

    streams: int = 4096 + 64  # concurrently open, counted for each end that opens: jobs, and what else a link carries
    unacknowledged: int = 256  # opened but not yet answered; libp2p peers refuse more
    window: int = 4 * 1024 * 1024  # to which a stream grows while its reader keeps up
    received: int = 32 * 1024 * 1024  # unread on the whole link, before the fullest stream is reset
    queued_stream: int = 8 * 1024 * 1024  # written but not sent, before write() refuses
    queued: int = 128 * 1024 * 1024


class Flow:
    """The state of one stream. `owner` is for the caller to set, `number` is its wire id, the rest is Session's."""

    __slots__ = (
        "bulk",
        "closing",
        "credit",
        "flags",
        "heard",
        "number",
        "over",
        "owner",
        "pending",
        "queued",
        "ready",
        "receive_window",
        "seen_end",
        "send_window",
        "sent_end",
        "unread",
        "window",
    )

    def __init__(self, number: int, flags: int) -> None:
        self.owner: Any = None
        self.number = number
        self.flags = flags  # SYN or ACK, until the first frame has carried it
        self.send_window = self.receive_window = self.window = INITIAL_WINDOW
        self.pending: deque[bytes | memoryview] = deque()
        self.queued = 0  # bytes in pending
        self.unread = 0  # bytes given to the owner that it has not consumed
        self.credit = 0  # bytes consumed and not yet granted again
        self.ready = False  # is in Session's turn queue
        self.bulk = False  # for the caller to set: leaves only when no other flow has anything to send
        self.closing = self.sent_end = self.seen_end = self.heard = self.over = False


class Opened(msgspec.Struct, frozen=True, gc=False):
    """The peer opened a stream."""

    flow: Flow


class Received(msgspec.Struct, frozen=True, gc=False):
    flow: Flow
    data: bytes


class Ended(msgspec.Struct, frozen=True, gc=False):
    """The peer closed its write side."""

    flow: Flow


class Dropped(msgspec.Struct, frozen=True, gc=False):
    """The stream is gone: reset by the peer, or by us because its reader let too much pile up (`ours`)."""

    flow: Flow
    ours: bool = False


class GoneAway(msgspec.Struct, frozen=True, gc=False):
    """The peer will accept no more streams. Code 0 is a normal end."""

    code: int


Event = Opened | Received | Ended | Dropped | GoneAway


class _Enough(Exception):
    """The peer has had its turn."""


class Session:
    """One end of a yamux connection; the end that dialled takes odd stream ids.

    `admits` says whether the peer may have another stream (True) or an answer to a ping (False); nothing is made for
    what it refuses. While `held_up`, what arrives is only kept, until `go_on`.
    """

    def __init__(
        self, dialled: bool, limits: Limits | None = None, admits: Callable[[bool], bool] = lambda _: True
    ) -> None:
        self.limits = limits or Limits()
        self._admits = admits
        self.patience = self._effort = EFFORT  # the first is for the owner to set
        self.held_up = False
        self.flows: dict[int, Flow] = {}
        self.forgotten: list[Flow] = []  # of late; for the caller to let go of
        self.queued = 0
        self.unread = 0
        self.unacknowledged = 0
        self._next = 1 if dialled else 2
        self._last_theirs = 0
        self._mine = self._theirs = 0
        self._gone = self._overrun = False
        self._control: deque[bytes] = deque()
        self._turns: deque[Flow] = deque()
        self._bulk: deque[Flow] = deque()
        self._held = b""
        self._body = 0  # bytes left of the data frame that is arriving
        self._body_flow: Flow | None = None
        self._body_flags = 0

    # -- what the owner asks

    @property
    def has_output(self) -> bool:
        return bool(self._control or self._turns or self._bulk)

    @property
    def accepted(self) -> int:
        """Streams that the peer opened and that are not over."""
        return self._theirs

    @property
    def may_open(self) -> bool:
        """False while too many streams await the peer's first answer; then wait for one."""
        return self.unacknowledged < self.limits.unacknowledged

    def open(self) -> Flow:
        """Raises TooManyStreams, or LinkClosed after the peer's go-away."""
        if self._gone:
            raise LinkClosed("The peer takes no more streams on this link.")
        if self._mine >= self.limits.streams:
            raise TooManyStreams(f"{self.limits.streams} streams are open on this link already.")
        if self._next > _MAX_WINDOW:
            raise LinkClosed("The link has used up its stream numbers.")
        flow = Flow(self._next, _SYN)
        self._next += 2
        self._mine += 1
        self.unacknowledged += 1
        self.flows[flow.number] = flow
        self._turn(flow)
        return flow

    def send(self, flow: Flow, data: bytes | memoryview) -> None:
        """Queues data; ignored on a stream that is over. Raises BufferFull."""
        size = len(data)
        if flow.over or flow.closing or not size:
            return
        if flow.queued + size > self.limits.queued_stream or self.queued + size > self.limits.queued:
            raise BufferFull(f"{flow.queued} bytes are waiting to be sent already.")
        flow.pending.append(data)
        flow.queued += size
        self.queued += size
        if flow.send_window or flow.flags:
            self._turn(flow)

    def finish(self, flow: Flow) -> None:
        """Closes the write side once what is queued has been taken."""
        if not flow.over and not flow.closing:
            flow.closing = True
            if not flow.queued or flow.send_window:
                self._turn(flow)

    def reset(self, flow: Flow) -> None:
        if not flow.over:
            if flow.flags != _SYN:  # else the peer never heard of it
                self._owe(_pack(0, _WINDOW, _RST, flow.number, 0))
            self._drop(flow)

    def shed(self) -> Dropped:
        """Resets the stream with the most unread bytes; there must be one."""
        fullest = max(self.flows.values(), key=lambda each: each.unread)
        self.reset(fullest)
        return Dropped(fullest, ours=True)

    def consume(self, flow: Flow, size: int) -> None:
        """The owner has taken `size` bytes out of its hands; from half a window on, the peer may send as much again."""
        if flow.over:
            return
        flow.unread -= size
        self.unread -= size
        if flow.seen_end:
            self._forget_if_done(flow)
            return
        flow.credit += size
        if flow.credit * 2 < flow.window:
            return
        grant, flow.credit = flow.credit, 0
        if not flow.unread and flow.window < self.limits.window:
            grown = min(2 * flow.window, self.limits.window)  # its reader keeps up: let more be under way
            grant += grown - flow.window
            flow.window = grown
        flow.receive_window += grant
        self._owe(_pack(0, _WINDOW, self._take_flags(flow), flow.number, grant))

    def ping(self, value: int = 0) -> None:
        self._owe(_pack(0, _PING, _SYN, 0, value))

    def go_away(self, code: int = 0) -> None:
        self._owe(_pack(0, _GO_AWAY, 0, 0, code))

    # -- what goes out

    def take(self, room: int) -> list[bytes | memoryview]:
        """The next frames, at most `room` bytes together (64 or more); empty when there is nothing to send.

        Bulk flows take their turns among themselves, when the others have had theirs.
        """
        pieces: list[bytes | memoryview] = []
        while self._control and room >= HEADER_SIZE:
            pieces.append(self._control.popleft())
            room -= HEADER_SIZE
        while room >= _LEAST_ROOM and (turns := self._turns or self._bulk):
            flow = turns.popleft()
            flow.ready = False
            if not flow.over:
                room -= self._emit(flow, room, pieces)
        return pieces

    def _emit(self, flow: Flow, room: int, pieces: list[bytes | memoryview]) -> int:
        size = min(flow.queued, flow.send_window, room - HEADER_SIZE)
        used = 0
        if size or flow.flags:
            kind = _DATA if size else _WINDOW
            pieces.append(_pack(0, kind, self._take_flags(flow), flow.number, size))
            flow.send_window -= size
            self._cut(flow, size, pieces)
            used = HEADER_SIZE + size
        if flow.queued:
            if flow.send_window:
                self._turn(flow)
        elif flow.closing and not flow.sent_end:
            # A frame of its own: js-libp2p forgets the data of a frame that also carries the end.
            if used + HEADER_SIZE > room:
                self._turn(flow)
                return used
            pieces.append(_pack(0, _WINDOW, _FIN, flow.number, 0))
            used += HEADER_SIZE
            flow.sent_end = True
            self._forget_if_done(flow)
        return used

    def _cut(self, flow: Flow, size: int, pieces: list[bytes | memoryview]) -> None:
        """Moves the first `size` pending bytes."""
        flow.queued -= size
        self.queued -= size
        pending = flow.pending
        if not flow.queued:
            pieces.extend(pending)
            pending.clear()
            return
        while size:
            piece = pending.popleft()
            if len(piece) > size:
                view = memoryview(piece)
                pieces.append(view[:size])
                pending.appendleft(view[size:])
                return
            pieces.append(piece)
            size -= len(piece)

    # -- what comes in

    def receive(self, data: bytes) -> list[Event]:
        """Events in order. Holds at most an unfinished header. Raises ProtocolViolation; the link is lost then."""
        if self._overrun:
            raise ProtocolViolation("The peer asks for answers and does not read them.")
        events: list[Event] = []
        if self._held:
            data = self._held + data
            if self.held_up:
                self._held = data
                return events
            self._held = b""
        at, end = 0, len(data)
        version: int
        kind: int
        flags: int
        number: int
        length: int
        try:
            while at < end:
                if self._body:
                    size = min(self._body, end - at)
                    if self._body_flow is not None:
                        self._deliver(self._body_flow, data[at : at + size], events)
                    at += size
                    self._body -= size
                    if not self._body and self._body_flow is not None:
                        self._conclude(self._body_flow, self._body_flags, events)
                    continue
                if end - at < HEADER_SIZE:
                    self._held = data[at:]
                    break
                version, kind, flags, number, length = _unpack_from(data, at)
                at += HEADER_SIZE
                if version:
                    raise ProtocolViolation("The peer speaks another version of yamux.")
                if kind <= _WINDOW:
                    self._stream_frame(kind, flags, number, length, events)
                else:
                    self._session_frame(kind, flags, number, length, events)
        except _Enough:
            self._held = data[at - HEADER_SIZE :]
            self.held_up = True
        return events

    @property
    def held(self) -> int:
        """Bytes that arrived and were not looked at yet."""
        return len(self._held)

    def rest(self) -> None:
        """Others had their turn since: what comes now is looked at with a fresh mind."""
        if not self.held_up:
            self._effort = self.patience

    def go_on(self) -> list[Event]:
        """In a later turn: what was held up. Raises ProtocolViolation."""
        self._effort, self.held_up = self.patience, False
        return self.receive(b"")

    def _stream_frame(self, kind: int, flags: int, number: int, length: int, events: list[Event]) -> None:
        flow = self._accept(number, events) if flags & _SYN else self.flows.get(number)
        if flow is None:  # a stream that ended here before the peer knew: let its last frames pass
            if not flags & _SYN:
                self._spend(_IDLE)
            if kind == _DATA:
                self._body, self._body_flow = length, None
            return
        if not flow.heard:
            self._first_answer(flow)
        if not flags & _SYN:
            self._spend(1 if length >= _TRIFLE else _IDLE)
        if kind == _DATA:
            if length > flow.receive_window or (length and flow.seen_end):
                raise ProtocolViolation("The peer sent more than it was granted on a stream.")
            flow.receive_window -= length
            if length:
                self._body, self._body_flow, self._body_flags = length, flow, flags
                return
        elif length:
            if flow.send_window + length > _MAX_WINDOW:
                raise ProtocolViolation("The peer granted an impossible window.")
            flow.send_window += length
            if flow.queued:
                self._turn(flow)
        self._conclude(flow, flags, events)

    def _session_frame(self, kind: int, flags: int, number: int, value: int, events: list[Event]) -> None:
        if kind > _GO_AWAY or number:
            raise ProtocolViolation("The peer sent a frame that yamux does not know.")
        if kind == _PING:
            self._spend(_IDLE)
            if flags & _SYN and self._admits(False):
                self._owe(_pack(0, _PING, _ACK, 0, value))
            return
        self._gone = True
        events.append(GoneAway(value))

    def _accept(self, number: int, events: list[Event]) -> Flow | None:
        if not number or number % 2 == self._next % 2 or number <= self._last_theirs:
            raise ProtocolViolation("The peer opened a stream under a number that is not its to use.")
        self._spend(_OPENING)
        self._last_theirs = number
        if not self._admits(True) or self._theirs >= self.limits.streams:
            self._owe(_pack(0, _WINDOW, _RST, number, 0))
            return None
        self._theirs += 1
        flow = Flow(number, _ACK)
        flow.heard = True
        self.flows[number] = flow
        self._turn(flow)
        events.append(Opened(flow))
        return flow

    def _deliver(self, flow: Flow, data: bytes, events: list[Event]) -> None:
        if flow.over:
            return
        flow.unread += len(data)
        self.unread += len(data)
        events.append(Received(flow, data))
        if self.unread > self.limits.received:
            events.append(self.shed())

    def _conclude(self, flow: Flow, flags: int, events: list[Event]) -> None:
        if flow.over:
            return
        if flags & _RST:
            self._drop(flow)
            events.append(Dropped(flow))
        elif flags & _FIN and not flow.seen_end:
            flow.seen_end = True
            events.append(Ended(flow))
            self._forget_if_done(flow)

    # -- bookkeeping

    def _spend(self, effort: int) -> None:
        """Before a frame changes anything. Raises _Enough: the frame is looked at again in a later turn."""
        if self._effort < effort:
            raise _Enough
        self._effort -= effort

    def _turn(self, flow: Flow) -> None:
        if not flow.ready:
            flow.ready = True
            (self._bulk if flow.bulk else self._turns).append(flow)

    def _take_flags(self, flow: Flow) -> int:
        flags, flow.flags = flow.flags, 0
        return flags

    def _first_answer(self, flow: Flow) -> None:
        flow.heard = True
        self.unacknowledged -= 1

    def _owe(self, frame: bytes) -> None:
        if len(self._control) < _MAX_CONTROL:
            self._control.append(frame)
        else:
            self._overrun = True

    def _forget_if_done(self, flow: Flow) -> None:
        if flow.sent_end and flow.seen_end and not flow.unread:
            self._remove(flow)

    def _drop(self, flow: Flow) -> None:
        flow.over = True
        self.queued -= flow.queued
        self.unread -= flow.unread
        flow.queued = flow.unread = 0
        flow.pending.clear()
        self._remove(flow)

    def _remove(self, flow: Flow) -> None:
        if self.flows.pop(flow.number, None) is None:
            return
        self.forgotten.append(flow)
        if not flow.heard:
            self._first_answer(flow)
        if flow.number % 2 == self._next % 2:
            self._mine -= 1
        else:
            self._theirs -= 1
