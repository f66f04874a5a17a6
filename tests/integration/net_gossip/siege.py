"""Neighbours that mean harm, in a process of their own so that what they do costs the besieged nothing.

    python siege.py KIND ENDPOINT COUNT SECONDS

COUNT names, one link each, do the same thing as fast as they can. Prints a line once all are linked.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Awaitable, Callable

from lading_net.core.kademlia import ADD_PROVIDER, FIND_NODE, KAD, Contact, Question, encode_question
from lading_net.core.rpc import MESHSUB, Prune, Rpc, encode_rpc, sign
from lading_net.direct import DirectLink, DirectStream, DirectTransport
from lading_net.errors import NetError
from lading_net.peer import Endpoint
from lading_net.ports import Stream
from lading_net.protobuf import encode_number
from lading_protocol.keys import PrivateKey

TOPIC = "/lading/offers/1"
Way = Callable[[DirectLink, int], Awaitable[None]]


async def pour(link: DirectLink, *pieces: bytes, protocol: str = MESHSUB) -> None:
    """The same again and again, as fast as it is taken."""
    stream = await link.open(protocol)
    if protocol == MESHSUB:
        stream.write(encode_rpc(Rpc(joined=(TOPIC,), graft=(TOPIC,))))
    while True:
        for piece in pieces:
            stream.write(piece)
            await stream.drain()


async def nothings(link: DirectLink, nth: int) -> None:
    """RPCs of no length at all."""
    await pour(link, bytes(32_768))


async def trifles(link: DirectLink, nth: int) -> None:
    """The smallest RPCs that say something: that a topic without a name is left."""
    await pour(link, b"\x04\x0a\x02\x08\x00" * 6_000)


async def lists(link: DirectLink, nth: int) -> None:
    """As many parts as an RPC may have, in lists of what nobody has, and in wishes."""
    pieces = [os.urandom(20) for _ in range(7_000)]
    await pour(link, encode_rpc(Rpc(have=((TOPIC, tuple(pieces)),))), encode_rpc(Rpc(want=tuple(pieces))))


def _true_messages() -> list[bytes]:
    """RPCs of ten messages, each of an author of its own."""
    true = [sign(PrivateKey(os.urandom(32)), TOPIC, bytes(600), os.urandom(8)) for _ in range(6_000)]
    return [encode_rpc(Rpc(messages=tuple(true[at : at + 10]))) for at in range(0, len(true), 10)]


async def spam(link: DirectLink, nth: int) -> None:
    """True messages, each of another author; every neighbour begins elsewhere among them."""
    rpcs = _prepared["spam"]
    at = nth * len(rpcs) // 12 % len(rpcs)
    await pour(link, *rpcs[at:], *rpcs[:at])


async def lures(link: DirectLink, nth: int) -> None:
    """A thousand promises a second, none of them kept."""
    stream = await link.open(MESHSUB)
    stream.write(encode_rpc(Rpc(joined=(TOPIC,))))
    while True:
        stream.write(encode_rpc(Rpc(have=((TOPIC, tuple(os.urandom(47) for _ in range(1_000))),))))
        await stream.drain()
        await asyncio.sleep(0.5)


async def flapping(link: DirectLink, nth: int) -> None:
    """In and out of the mesh."""
    turn = Rpc(graft=(TOPIC,)), Rpc(prune=(Prune(TOPIC, 3_600),)), Rpc(left=(TOPIC,)), Rpc(joined=(TOPIC,))
    await pour(link, b"".join(map(encode_rpc, turn)) * 50)


async def questions(link: DirectLink, nth: int) -> None:
    """Kademlia's, on a new stream whenever the last one is given up; every other one says what it provides."""
    mine = Contact(link.peer_id, (Endpoint.parse("/ip4/10.0.0.1/tcp/1"),))
    while True:
        with contextlib.suppress(NetError):
            stream = await link.open(KAD)
            for _ in range(50):
                stream.write(encode_question(Question(FIND_NODE, os.urandom(32))))
                stream.write(encode_question(Question(ADD_PROVIDER, os.urandom(32), (mine,))))
                await stream.drain()
            async with asyncio.timeout(0.05):
                await stream.read()
        await asyncio.sleep(0)
        if link.lost:
            return


async def dribble(link: DirectLink, nth: int) -> None:
    """Questions and RPCs that are nearly whole, for ever: as much as will be held."""
    streams = [await link.open(KAD) for _ in range(8)] + [await link.open(MESHSUB)]
    for stream in streams:
        size = 250_000 if stream is streams[-1] else 60_000
        with contextlib.suppress(NetError):
            stream.write(encode_number(size + 10) + bytes(size))
            await stream.drain()
    await asyncio.Event().wait()


_prepared: dict[str, list[bytes]] = {}
WAYS: dict[str, Way] = {
    one.__name__: one for one in (nothings, trifles, lists, spam, lures, flapping, questions, dribble)
}


async def _deaf(stream: Stream) -> None:
    assert isinstance(stream, DirectStream)
    with contextlib.suppress(NetError):
        while await stream.read():
            pass


async def _one(kind: str, endpoint: str, nth: int, linked: asyncio.Barrier) -> None:
    transport = DirectTransport(PrivateKey(os.urandom(32)))
    transport.handle(MESHSUB, _deaf)
    try:
        link = await transport.dial(endpoint)
        await linked.wait()
        while True:
            with contextlib.suppress(NetError):
                await WAYS[kind](link, nth)
            await asyncio.sleep(0.05)
            link = await transport.dial(endpoint)  # whoever is thrown out comes back, until it is barred
    except NetError:
        pass
    finally:
        await transport.close()


async def main(kind: str, endpoint: str, count: int, seconds: float) -> None:
    if kind == "spam":
        _prepared[kind] = _true_messages()
    linked = asyncio.Barrier(count + 1)
    vandals = [asyncio.create_task(_one(kind, endpoint, nth, linked)) for nth in range(count)]
    await linked.wait()
    print("linked", flush=True)
    await asyncio.sleep(seconds)
    for each in vandals:
        each.cancel()
    await asyncio.gather(*vandals, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))
