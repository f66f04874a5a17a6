"""One question of Kademlia's and its answer, on a stream of a link: whom do you know."""

from __future__ import annotations

import asyncio

from lading_net.core.kademlia import (
    ADD_PROVIDER,
    FIND_NODE,
    GET_PROVIDERS,
    KAD,
    LONGEST,
    Contact,
    Question,
    decode_answer,
    decode_providers,
    encode_question,
    reachable,
)
from lading_net.core.places import Place, place
from lading_net.core.rpc import Cutter
from lading_net.direct import DirectLink, DirectStream
from lading_net.errors import BadMessage, NetTimeout, ProtocolViolation, StreamReset
from lading_net.ports import Stream

ANSWER_SECONDS = 5.0


async def nearest_of(link: DirectLink, key: bytes) -> list[Contact]:
    """Whom the peer knows near to a key. Raises NetError."""
    answer = await _asked(await link.open(KAD), encode_question(Question(FIND_NODE, key)))
    return reachable(decode_answer(answer), _place(link))


async def providers_of(link: DirectLink, key: bytes) -> tuple[list[Contact], list[Contact]]:
    """Who provides what is under the key, and who may know more of them. Raises NetError."""
    answer = await _asked(await link.open(KAD), encode_question(Question(GET_PROVIDERS, key)))
    providers, closer = decode_providers(answer)
    return reachable(providers, _place(link)), reachable(closer, _place(link))


async def provide_at(link: DirectLink, key: bytes, mine: Contact) -> None:
    """Tells the peer that we provide what is under the key; nothing is answered. Raises NetError."""
    stream = await link.open(KAD)
    stream.write(encode_question(Question(ADD_PROVIDER, key, (mine,))))
    await stream.drain()
    await stream.close()


def _place(link: DirectLink) -> Place:
    return place(link.seen_at[0] if link.seen_at else "")


async def read_piece(stream: Stream, cutter: Cutter) -> list[bytes]:
    """At least one piece; none once the peer has closed its side. Raises NetError."""
    while data := await stream.read():
        if pieces := cutter.feed(data):
            return pieces
    return []


async def _asked(stream: DirectStream, question: bytes) -> bytes:
    try:
        if question:
            stream.write(question)
        async with asyncio.timeout(ANSWER_SECONDS):
            pieces = await read_piece(stream, Cutter(LONGEST))
    except TimeoutError:
        raise NetTimeout("The peer did not answer.") from None
    except ProtocolViolation as error:
        raise BadMessage(error.message) from None
    finally:
        stream.reset()
    if not pieces:
        raise StreamReset("The peer did not answer.")
    return pieces[0]
