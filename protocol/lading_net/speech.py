"""Asking a peer what it speaks, and answering: one question on a link, before anything whose form depends on it."""

from __future__ import annotations

import asyncio
from typing import Protocol

import msgspec

from lading_net.errors import NetTimeout, NoCommonVersion, StreamReset, UnknownProtocol
from lading_net.messages import MessageStream
from lading_net.ports import Link, Stream, Transport
from lading_protocol.ids import Address
from lading_protocol.speech import FIRST, OURS, SPEECH, Agreed, Speech, agree, dated, time_of

ASK_SECONDS = 5.0
_speech = msgspec.msgpack.Decoder(Speech)


class Clock(Protocol):
    """What time it is (Unix seconds): `now` here, and `heard` what a peer says, who alone answers for it."""

    def now(self) -> float: ...

    def heard(self, peer: Address, at: int) -> None: ...


def serve_speech(transport: Transport, ours: Speech = OURS, clock: Clock | None = None) -> None:
    """Answers from now on whoever asks; with `clock` each side tells the other what time it is."""

    async def handler(stream: Stream) -> None:
        messages: MessageStream[Speech] = MessageStream(stream, _speech)
        theirs = await messages.recv()
        if theirs is not None:
            _hear(stream.peer, theirs, clock)
            messages.send(_said(ours, clock))
            await messages.drain()

    transport.handle(SPEECH, handler)


async def agreed_with(link: Link, ours: Speech = OURS, clock: Clock | None = None) -> Agreed:
    """What to speak on this link; `clock` as in serve_speech. Raises NoCommonVersion in words, NetTimeout and other
    NetErrors."""
    theirs: Speech | None = None
    try:
        async with asyncio.timeout(ASK_SECONDS):
            stream = await link.open(SPEECH)
            messages: MessageStream[Speech] = MessageStream(stream, _speech)
            messages.send(_said(ours, clock))
            theirs = await messages.recv()
            await stream.close()
    except (UnknownProtocol, StreamReset):  # what follows the name of a protocol that is not served makes it a reset
        theirs = FIRST
    except TimeoutError:
        raise NetTimeout("The peer does not say which version it speaks.") from None
    _hear(link.peer, theirs or FIRST, clock)
    found = agree(ours, theirs or FIRST)
    if isinstance(found, str):
        raise NoCommonVersion(found)
    return found


def _said(ours: Speech, clock: Clock | None) -> Speech:
    return ours if clock is None else dated(ours, clock.now())


def _hear(peer: Address, theirs: Speech, clock: Clock | None) -> None:
    at = time_of(theirs)
    if clock is not None and at is not None:
        clock.heard(peer, at)
