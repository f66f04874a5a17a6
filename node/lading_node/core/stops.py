"""Output text and stop rules: which text each token releases, and when an answer ends.

Everything follows from the emitted ids alone, so whoever feeds the same ids has the same state: that is how a stream
moves to another host without losing or repeating text. Pure; knows no tokenizer library and no model.
"""

import codecs
from collections.abc import Iterable, Sequence
from typing import Literal

Ending = Literal["", "stop", "length"]

# The character that stands for each byte in a byte-level BPE vocabulary: printable bytes are themselves, the others
# follow from 256 on (Radford et al., GPT-2, 2019).
_PRINTABLE = frozenset([*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)])
_HIDDEN = [byte for byte in range(256) if byte not in _PRINTABLE]
_BYTE_OF = {chr(byte): byte for byte in _PRINTABLE} | {chr(256 + i): byte for i, byte in enumerate(_HIDDEN)}


def piece_bytes(piece: str) -> bytes:
    """The bytes of a vocabulary entry of a byte-level BPE; one that is not in that alphabet stands for itself."""
    try:
        return bytes([_BYTE_OF[character] for character in piece])
    except KeyError:
        return piece.encode()


class OutputText:
    """The text of one answer, token by token.

    `pieces` are the bytes of each id; an id beyond them, and an end id, have none. `finish` is set by the token that
    ends the answer: an end id or a completed stop string ("stop"), or the last of `max_tokens` ("length").
    """

    __slots__ = ("_decoder", "_ends", "_held", "_left", "_pieces", "_stops", "count", "finish")

    def __init__(self, pieces: Sequence[bytes], ends: Iterable[int], stops: Sequence[str], max_tokens: int) -> None:
        self._pieces = pieces
        self._ends = frozenset(ends)
        self._stops = tuple(stops)
        self._left = max_tokens
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self.count = 0
        self.finish: Ending = ""

    def push(self, token: int) -> str:
        """The text that `token` releases. A stop string and what follows it are never released."""
        self.count += 1
        self._left -= 1
        is_end = token in self._ends
        last = is_end or self._left <= 0
        piece = b"" if is_end or token >= len(self._pieces) else self._pieces[token]
        fresh = self._decoder.decode(piece, last)
        if self._stops:
            fresh, stopped = self._screen(fresh, last)
            is_end = is_end or stopped
        if is_end or last:
            self.finish = "stop" if is_end else "length"
        return fresh

    def _screen(self, fresh: str, last: bool) -> tuple[str, bool]:
        text = self._held + fresh
        found = [at for at in map(text.find, self._stops) if at >= 0]
        if found:
            self._held = ""
            return text[: min(found)], True
        keep = 0 if last else max(overlap(text, stop) for stop in self._stops)
        released = len(text) - keep
        self._held = text[released:]
        return text[:released], False

    def replay(self, tokens: Iterable[int]) -> str:
        """Push all tokens of earlier attempts; stops early when they end the answer. Returns their text."""
        parts = []
        for token in tokens:
            if self.finish:
                break
            parts.append(self.push(token))
        return "".join(parts)


def overlap(text: str, stop: str) -> int:
    """How many last characters of `text` may be the beginning of `stop`."""
    for size in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:size]):
            return size
    return 0
