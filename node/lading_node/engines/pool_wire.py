"""What a node and a machine of its pool say to each other: frames of msgpack, a closed union per direction.

A seat is one engine on one machine. Files are pulled by the machine, a part at a time, and checked by their digests.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from lading_node.engines.port import Embed, EngineSpec, FailureCode, Generate, Health, Ready, Score
from lading_node.engines.wire import FromEngine
from lading_node.hardware.devices import Device
from lading_protocol.framing import Frames, frame

# A machine speaks at least this often, in seconds.
BEAT_S = 2.0
PART = 512 << 10


class _Wire(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class Hello(_Wire, frozen=True, tag="hello"):
    """The node is here, again or for the first time: every engine of before ends."""

    session: str


class Place(_Wire, frozen=True, tag="place"):
    """The spec's paths are the node's; a machine that has the same file there uses it, else it asks for its bytes."""

    seat: str
    spec: EngineSpec


class Part(_Wire, frozen=True, tag="part"):
    """The bytes of a file from `offset` on: PART of them, fewer at its end; none and `gone` when it cannot be read."""

    seat: str
    digest: bytes
    offset: int
    data: Annotated[bytes, Meta(max_length=PART)]
    gone: bool = False


class Ask(_Wire, frozen=True, tag="ask"):
    seat: str
    order: Generate | Embed | Score


class Cancel(_Wire, frozen=True, tag="cancel"):
    seat: str
    id: str


class Taken(_Wire, frozen=True, tag="taken"):
    seat: str
    id: str
    count: int


class Halt(_Wire, frozen=True, tag="halt"):
    """End an engine, politely for `grace` seconds; answered by Gone."""

    seat: str
    grace: float


class Here(_Wire, frozen=True, tag="here"):
    """The answer to Hello: what the machine is and has."""

    session: str
    program: str
    devices: tuple[Device, ...]


class Want(_Wire, frozen=True, tag="want"):
    seat: str
    digest: bytes
    offset: int


class Placed(_Wire, frozen=True, tag="placed"):
    seat: str
    ready: Ready


class Gone(_Wire, frozen=True, tag="gone"):
    """The engine of this seat has ended or could not be had; nothing more comes from it."""

    seat: str
    code: FailureCode
    message: str
    hint: str = ""


class Told(_Wire, frozen=True, tag="told"):
    seat: str
    event: FromEngine


class Pulse(_Wire, frozen=True, tag="pulse"):
    """How a seat's engine is, as its machine measures it."""

    seat: str
    health: Health


ToMachine = Hello | Place | Part | Ask | Cancel | Taken | Halt
FromMachine = Here | Want | Placed | Gone | Told | Pulse

_to_machine: msgspec.msgpack.Decoder[ToMachine] = msgspec.msgpack.Decoder(ToMachine)
_from_machine: msgspec.msgpack.Decoder[FromMachine] = msgspec.msgpack.Decoder(FromMachine)
_encoder = msgspec.msgpack.Encoder()


def encode(message: ToMachine | FromMachine) -> bytes:
    """One frame. Raises BadMessage when it is too large."""
    return frame(_encoder.encode(message))


def to_machine(data: bytes) -> list[ToMachine]:
    """Whole frames. Raises BadMessage or MsgspecError for anything else."""
    return [_to_machine.decode(payload) for payload in Frames().feed(data)]


def from_machine(data: bytes) -> list[FromMachine]:
    return [_from_machine.decode(payload) for payload in Frames().feed(data)]
