"""What a host says of a job, as its payer reads it: as few events as say the same. Knows nothing of what is right.

Token messages that came together are one event, `Joined`. Of the plainest kind they stay packed until the job machine
looks at them: what is right of them is read, checked and put together in C then, where there is C.
"""

from collections import deque
from collections.abc import Sequence
from typing import Final

import msgspec

from lading_protocol import native
from lading_protocol.messages import Chunk, Done, Tokens, ToPayer

MOST_JOINED: Final = 64
_run: Final = native.run
_follow: Final = native.follow
_decode: Final = msgspec.msgpack.Decoder(ToPayer).decode


class Joined:
    """Token messages that came together: each is checked like one that came alone. Made of either."""

    __slots__ = ("_frames", "_packed")

    def __init__(self, frames: list[Tokens], packed: list[bytes]) -> None:
        self._frames = frames
        self._packed = packed

    def follow(self, due: int, most: int, rolling: bytes) -> tuple[list[int], str, bytes, int]:
        """What is right of the messages from the first on, as far as C can tell, where `due` is the next index, `most`
        the number of tokens asked for: ids, text, the rolling hash after them, and how many messages that are."""
        return _follow(self._packed, due, most, rolling)

    def frames(self, start: int = 0) -> Sequence[Tokens]:
        """The messages from that one on."""
        return [_plain(one) for one in self._packed[start:]] if self._packed else self._frames[start:]


Heard = ToPayer | Joined


def hear(payloads: list[bytes], into: deque[Heard]) -> str:
    """Adds what the payloads say. Returns "", or why what comes after that is no message."""
    why, at = "", 0
    messages: list[Heard] = []
    try:
        while at < len(payloads):
            count = _run(payloads, at, MOST_JOINED)
            if count > 1:
                messages.append(Joined([], payloads[at : at + count]))
                at += count
            else:
                messages.append(_decode(payloads[at]))
                at += 1
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        why = str(error)
    into.extend(joined(messages) if len(messages) > 1 else messages)
    return why


def joined(messages: list[Heard]) -> list[Heard]:
    """The same said in fewer events: token messages in a row are one.

    A receipt that a final one over the same tokens follows is not needed: what it would prove, the later one proves.
    """
    found: list[Heard] = []
    frames: list[Tokens] = []
    plain = Tokens
    for message in messages:
        if type(message) is plain:
            if len(frames) == MOST_JOINED:
                found.append(Joined(frames, []))
                frames = []
            frames.append(message)
            continue
        if frames:
            found.append(Joined(frames, []) if len(frames) > 1 else frames[0])
            frames = []
        if type(message) is Done and found and type(before := found[-1]) is Chunk and not message.marks:
            found[-1] = Done(message.receipt, before.marks)
        else:
            found.append(message)
    if frames:
        found.append(Joined(frames, []) if len(frames) > 1 else frames[0])
    return found


def _plain(packed: bytes) -> Tokens:
    message = _decode(packed)
    assert isinstance(message, Tokens)
    return message
