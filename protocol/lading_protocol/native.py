"""What a compiled build does in C (_native.c) and plain Python by itself, to the same end; heard.py says of `run` and
`follow` what that is. Where there is no C, they find nothing.
"""

import hashlib
import importlib
from collections.abc import Callable, Iterable
from typing import Any, Final

try:
    from lading_protocol import _native as _c
except ImportError:
    _c = None  # type: ignore[assignment]


def _interpreters_own() -> Callable[[bytes], Any]:
    """The sha256 that comes with Python: OpenSSL's has not begun when this one is done with so little as one token."""
    for name in ("_sha2", "_sha256"):  # from 3.12 on, before
        try:
            found: Callable[[bytes], Any] = importlib.import_module(name).sha256
        except ImportError:
            continue
        return found
    return hashlib.sha256


_short_sha256: Final = _interpreters_own()


def _sha256(data: bytes) -> bytes:
    return _short_sha256(data).digest()  # type: ignore[no-any-return]


def _roll(state: bytes, ids: Iterable[int]) -> bytes:
    sha = _short_sha256
    for i in ids:
        state = sha(state + i.to_bytes(4, "big")).digest()
    return state


def _run(payloads: list[bytes], at: int, most: int) -> int:
    return 0


def _follow(payloads: list[bytes], due: int, most: int, rolling: bytes) -> tuple[list[int], str, bytes, int]:
    return [], "", rolling, 0


# So many bytes are hashed at once by `sha256`; more are better off with OpenSSL, beside which other threads run.
FEW: Final[int] = 4096 if _c else 0
sha256: Final[Callable[[bytes], bytes]] = _c.sha256 if _c else _sha256
roll: Final[Callable[[bytes, Iterable[int]], bytes]] = _c.roll if _c else _roll
run: Final[Callable[[list[bytes], int, int], int]] = _c.run if _c else _run
follow: Final[Callable[[list[bytes], int, int, bytes], tuple[list[int], str, bytes, int]]] = (
    _c.follow if _c else _follow
)
