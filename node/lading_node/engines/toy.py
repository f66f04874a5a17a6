"""A language model without weights, for simulation: its logits hash the whole context and a seed.

Any token lost, repeated or swapped changes everything after it, so an error in resuming shows at once. Pieces include
halves of characters, so that text handling is exercised too.
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.random import Philox

from lading_node.core.sketch import States
from lading_node.engines.errors import EngineError
from lading_node.engines.model import Advance, Logits
from lading_node.engines.tasks import Budget, Charge, Emission
from lading_protocol.messages import CallRequest, Message, Streamed
from lading_protocol.work import FUEL

_WORDS = "the a fox lantern boat river carries finds old small red under over and then stops sings waits home far"
_PIECES = [f" {word}".encode() for word in _WORDS.split()] + [b".", b",", b"\xc3", b"\xa9", b"\xe2\x82", b"\xac", b"\n"]
_END = len(_PIECES)
_FIRST_BYTE = _END + 1
WIDTH = 8
_ROLES = {"system": 256, "user": 257, "assistant": 258}


class ToyModel:
    engine = "memory"
    version = "1"
    vocab = _FIRST_BYTE + 256 + len(_ROLES)
    states = 8
    advance: Advance | None = None
    ends = (_END,)
    pieces: Sequence[bytes] = [*_PIECES, b"", *(bytes([byte]) for byte in range(256))]

    def __init__(self, seed: str) -> None:
        self._start = hashlib.sha256(b"toy" + seed.encode()).digest()

    def least_tokens(self, messages: Sequence[Message]) -> int:
        return sum(len(message.content.encode()) + 1 for message in messages) + 1

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        ids = []
        for message in messages:
            if message.role not in _ROLES:
                raise EngineError("invalid_request", f"This agent knows no role {message.role!r}.")
            ids.append(_FIRST_BYTE + _ROLES[message.role])
            ids += [_FIRST_BYTE + byte for byte in message.content.encode()]
        return [*ids, _FIRST_BYTE + _ROLES["assistant"]]

    def plain(self, text: str) -> list[int]:
        return [_FIRST_BYTE + byte for byte in text.encode()]

    def with_tools(self, turns: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]]) -> list[int] | None:
        return None

    def open(self, ids: Sequence[int], room: int) -> "ToyContext":
        return ToyContext(self._start, ids)

    def embed(self, text: str) -> tuple[bytes, int]:
        """A unit vector that any change of text or seed turns elsewhere, and the number of tokens."""
        digest = hashlib.sha256(self._start + text.encode()).digest()
        row = np.frombuffer(digest[:WIDTH], np.uint8).astype(np.float64) - 127.5
        return (row / np.sqrt(np.square(row).sum())).astype("<f4").tobytes(), len(text.encode()) + 1

    def rows(self, ids: Sequence[int], count: int) -> Logits:
        context = ToyContext(self._start, ids[: len(ids) - count + 1])
        rows = [context.logits()]
        for token in ids[len(ids) - count + 1 :]:
            context.append(token)
            rows.append(context.logits())
        return np.stack(rows)

    def traced(self, ids: Sequence[int], count: int) -> tuple[Logits, States]:
        return self.rows(ids, count), ToyContext(self._start, ids).states()


class ToyContext:
    """Its states are 32 bytes of hash each, taken as eight numbers."""

    def __init__(self, start: bytes, ids: Sequence[int]) -> None:
        self._state = start
        passed = []
        for token in ids:
            self.append(token)
            passed.append(self._state)
        self._passed = b"".join(passed)

    def logits(self) -> Logits:
        """Words and the end between -4 and 4 (the end a little less likely); bytes and roles far below."""
        row = np.full(ToyModel.vocab, -100, dtype=np.float32)
        drawn = Philox(key=np.frombuffer(self._state, "<u8", 2)).random_raw(_END + 1)
        row[: _END + 1] = (drawn >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-21) - 4
        row[_END] -= 1
        return row

    def states(self) -> States:
        drawn = np.frombuffer(self._passed, "<u4").reshape(-1, ToyModel.states)
        return drawn.astype(np.float32) * np.float32(2.0**-30) - 2

    def append(self, token: int) -> None:
        self._state = self._passed = hashlib.sha256(self._state + token.to_bytes(4, "big")).digest()


def toy_task(request: Streamed, budget: Budget) -> Iterator[Emission]:
    """A call that gives its input back, seven bytes at a time, with some fuel between them."""
    if not isinstance(request, CallRequest):
        raise EngineError("invalid_request", "This is no call.")
    for at in range(0, len(request.input), 7):
        yield request.input[at : at + 7]
        yield Charge(FUEL, 1 + at % 2)
