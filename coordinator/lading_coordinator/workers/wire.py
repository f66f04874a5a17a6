"""What desk and workers say to each other over a unix socket: whom a lent stream leads to, and hosts' heartbeats.

A connection is either one lent stream (a `Lend`, then the stream's own bytes both ways, the first byte back being GOOD)
or the desk's telling of heartbeats (a `Listen`, then frames of `Told`).
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


class Told(msgspec.Struct, frozen=True, array_like=True):
    """A message of a host's heartbeat; an empty one when its link is gone."""

    host: Address
    message: bytes


Asked: TypeAlias = Lend | Listen
asked = msgspec.msgpack.Decoder(Asked)
told = msgspec.msgpack.Decoder(Told)
_encode = msgspec.msgpack.Encoder().encode


def packed(message: msgspec.Struct) -> bytes:
    return frame(_encode(message))


async def read_frame(reader: asyncio.StreamReader) -> bytes:
    """Raises IncompleteReadError at the end."""
    return await reader.readexactly(int.from_bytes(await reader.readexactly(4), "big"))
