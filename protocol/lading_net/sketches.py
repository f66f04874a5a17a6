"""A sketch on a stream: longer than one message may be, so it goes in parts that each say what is left."""

from __future__ import annotations

from typing import TypeVar

from lading_net.errors import BadMessage
from lading_net.messages import MessageStream
from lading_protocol.messages import MAX_FRAME, Sketch

T = TypeVar("T")
_PART = MAX_FRAME // 2


async def send_sketch(messages: MessageStream[T], data: bytes) -> None:
    """At least one message. Raises as MessageStream.send and drain do."""
    for at in range(0, max(1, len(data)), _PART):
        messages.send(Sketch(data[at : at + _PART], max(0, len(data) - at - _PART)))
        await messages.drain()


async def receive_sketch(messages: MessageStream[T], first: Sketch, size: int) -> bytes:
    """The whole, of which `first` has arrived. Raises BadMessage when it does not have `size` bytes."""
    parts, got = [first.data], len(first.data)
    left = first.left
    while left:
        if got + left != size or not parts[-1]:
            break
        part = await messages.recv()
        if not isinstance(part, Sketch) or part.left + len(part.data) != left:
            raise BadMessage("The peer's sketch breaks off.")
        parts.append(part.data)
        got, left = got + len(part.data), part.left
    if got != size or left:
        raise BadMessage(f"The peer's sketch has {got + left} bytes where {size} belong.")
    return b"".join(parts)
