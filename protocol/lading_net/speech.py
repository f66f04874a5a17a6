"""Asking a peer what it speaks, and answering: one question on a link, before anything whose form depends on it."""

from __future__ import annotations

import asyncio

import msgspec

from lading_net.errors import NetTimeout, NoCommonVersion, UnknownProtocol
from lading_net.messages import MessageStream
from lading_net.ports import Link, Stream, Transport
from lading_protocol.speech import FIRST, OURS, SPEECH, Agreed, Speech, agree

ASK_SECONDS = 5.0
_speech = msgspec.msgpack.Decoder(Speech)


def serve_speech(transport: Transport, ours: Speech = OURS) -> None:
    """Answers from now on whoever asks."""

    async def handler(stream: Stream) -> None:
        messages: MessageStream[Speech] = MessageStream(stream, _speech)
        if await messages.recv() is not None:
            messages.send(ours)
            await messages.drain()

    transport.handle(SPEECH, handler)


async def agreed_with(link: Link, ours: Speech = OURS) -> Agreed:
    """What to speak on this link. Raises NoCommonVersion in words, NetTimeout and other NetErrors."""
    theirs: Speech | None = None
    try:
        async with asyncio.timeout(ASK_SECONDS):
            stream = await link.open(SPEECH)
            messages: MessageStream[Speech] = MessageStream(stream, _speech)
            messages.send(ours)
            theirs = await messages.recv()
            await stream.close()
    except UnknownProtocol:
        theirs = FIRST
    except TimeoutError:
        raise NetTimeout("The peer does not say which version it speaks.") from None
    found = agree(ours, theirs or FIRST)
    if isinstance(found, str):
        raise NoCommonVersion(found)
    return found
