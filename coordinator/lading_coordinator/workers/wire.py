"""What desk and workers say to each other over a unix socket: whom a lent stream leads to, and hosts' heartbeats.

A connection is one lent stream (a `Lend`, then the stream's own bytes both ways, the first byte back being GOOD), a
call to a peer that the desk is to link to (a `Call`, then GOOD or why not), or the desk's telling of heartbeats and of
other coordinators' summaries (a `Listen`, then frames of `Told` and `News`).
"""

import asyncio
from typing import TypeAlias

import msgspec

from lading_protocol.framing import frame
from lading_protocol.ids import Address

GOOD = b"\x01"
CHUNK = 64 * 1024


class Lend(msgspec.Struct, frozen=True, tag=1, array_like=True):
    peer: Address
    protocol: str


class Listen(msgspec.Struct, frozen=True, tag=2, array_like=True):
    pass


class Call(msgspec.Struct, frozen=True, tag=3, array_like=True):
    peer: Address
    endpoint: str


class Told(msgspec.Struct, frozen=True, tag=1, array_like=True):
    """A message of a host's heartbeat; an empty one when its link is gone."""

    host: Address
    message: bytes


class News(msgspec.Struct, frozen=True, tag=2, array_like=True):
    """A summary of another coordinator, as it was gossiped."""

    data: bytes


Asked: TypeAlias = Lend | Listen | Call
Telling: TypeAlias = Told | News
asked = msgspec.msgpack.Decoder(Asked)
told: msgspec.msgpack.Decoder[Telling] = msgspec.msgpack.Decoder(Telling)
_encode = msgspec.msgpack.Encoder().encode


def packed(message: msgspec.Struct) -> bytes:
    return frame(_encode(message))


async def read_frame(reader: asyncio.StreamReader) -> bytes:
    """Raises IncompleteReadError at the end."""
    return await reader.readexactly(int.from_bytes(await reader.readexactly(4), "big"))
