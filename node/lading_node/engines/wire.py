"""What a node and an engine's process say to each other over the process's stdin and stdout.

Each message is one frame (lading_protocol.framing) of msgpack, a closed union per direction.
"""

import msgspec

from lading_node.engines.confine import Bounds
from lading_node.engines.port import (
    Embed,
    EngineSpec,
    Failed,
    Finished,
    Generate,
    Ready,
    Run,
    Score,
    Scored,
    Started,
    Traced,
)
from lading_protocol.framing import frame


class _Wire(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


# Seconds for which the tokens of a fast model are gathered before they are written.
JOIN_S = 0.008


class Load(_Wire, frozen=True, tag="load"):
    """The first message. `join_s` is JOIN_S or other; `bounds` is what the process holds itself to."""

    spec: EngineSpec
    join_s: float
    bounds: Bounds


class Cancel(_Wire, frozen=True, tag="cancel"):
    id: str


class Taken(_Wire, frozen=True, tag="taken"):
    """The caller has taken `count` tokens of this attempt."""

    id: str
    count: int


class Ping(_Wire, frozen=True, tag="ping"):
    """Answered between two steps: shows that the process is not stuck in one."""


class Stop(_Wire, frozen=True, tag="stop"):
    pass


class Pong(_Wire, frozen=True, tag="pong"):
    pass


class Vector(_Wire, frozen=True, tag="vector"):
    """One row of an embedding; `left` rows follow."""

    id: str
    data: bytes
    tokens: int
    left: int


ToEngine = Load | Generate | Embed | Score | Cancel | Taken | Ping | Stop
FromEngine = Ready | Started | Traced | Run | Finished | Failed | Vector | Scored | Pong


def is_last(event: FromEngine) -> bool:
    """Whether no further event of the same request follows."""
    return isinstance(event, Finished | Failed | Scored) or (isinstance(event, Vector) and not event.left)


to_engine: msgspec.msgpack.Decoder[ToEngine] = msgspec.msgpack.Decoder(ToEngine)
from_engine: msgspec.msgpack.Decoder[FromEngine] = msgspec.msgpack.Decoder(FromEngine)
_encoder = msgspec.msgpack.Encoder()


def encode(message: ToEngine | FromEngine) -> bytes:
    """One frame. Raises BadMessage when it is too large."""
    return frame(_encoder.encode(message))
