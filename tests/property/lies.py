"""Lies of every kind: a field that is wrong, a message that is missing, that comes twice, or that was never due."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgspec

from lading_net.errors import NetError
from lading_net.messages import MessageStream

NUMBERS = (0, 1, 2, 31, 32, 33, 64, 65, 2**31, 2**32 - 1, 2**53, 2**64 - 1, -1)
TEXTS = ("", "\x00", "\u2028", "data: [DONE]\n\n", "\r\n\r\n", "\x1b[31m", '{"name":"x"}', "a" * 1000)


def bent(message: msgspec.Struct, rng: random.Random) -> msgspec.Struct:
    """The same with one field that is something else."""
    name = rng.choice(message.__struct_fields__)
    return msgspec.structs.replace(message, **{name: _other(getattr(message, name), rng)})


def _other(value: Any, rng: random.Random) -> Any:
    match value:
        case bool():
            return not value
        case int():
            return rng.choice([*NUMBERS, value + 1, value - 1])
        case float():
            return rng.choice([float("nan"), float("inf"), -1e308, value + 1])
        case str():
            return rng.choice(TEXTS)
        case bytes():
            turned = bytearray(value or b"\0")
            turned[rng.randrange(len(turned))] ^= 1 << rng.randrange(8)
            return rng.choice(
                [bytes(turned), value[: len(value) // 2], value + bytes(33), rng.randbytes(len(value)), b""]
            )
        case tuple():
            made = tuple(rng.choice(NUMBERS) for _ in range(rng.choice([1, 3, 200])))
            one_bent = tuple(_other(one, rng) for one in value)
            return rng.choice([value + value, value[:-1], made, one_bent])
        case msgspec.Struct() if value.__struct_fields__:
            return bent(value, rng)
        case _:
            return value


class Liar:
    """Stands before a stream of messages, and lets one in so many through as it should not be. `undue` are messages
    that nobody waits for."""

    def __init__(self, messages: MessageStream[Any], rng: random.Random, share: float, undue: Sequence[object]) -> None:
        self._messages, self._rng, self._share, self._undue = messages, rng, share, undue
        self._said: list[object] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._messages, name)

    def send(self, message: Any) -> None:
        rng = self._rng
        self._said.append(message)
        if rng.random() >= self._share:
            self._messages.send(message)
            return
        with suppress(OverflowError):  # no number of msgpack's
            match rng.randrange(6):
                case 0 | 1 if message.__struct_fields__:
                    self._messages.send(bent(message, rng))
                case 2:
                    pass
                case 3:
                    self._messages.send(message)
                    self._messages.send(message)
                case 4:
                    self._messages.send(rng.choice(self._said))
                    self._messages.send(message)
                case _:
                    self._messages.send(rng.choice(self._undue))
                    with suppress(NetError):
                        self._messages.send(message)
