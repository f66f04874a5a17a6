"""Identifiers and amounts, each with its own type.

Off the chain an address is 20 bytes, a digest 32 bytes and a signature 65 bytes (r, s, v with v 27 or 28), but for
receipts of a sheaf (sheaves).
JSON and people see 0x-hex; only this module converts between the two.
"""

from typing import NewType

Address = NewType("Address", bytes)
Digest = NewType("Digest", bytes)
Signature = NewType("Signature", bytes)
JobId = NewType("JobId", bytes)
AgentId = NewType("AgentId", bytes)
TermsId = NewType("TermsId", bytes)
Wei = NewType("Wei", int)

ZERO_ADDRESS = Address(bytes(20))
ZERO_DIGEST = Digest(bytes(32))
MAX_U96 = 2**96 - 1
# Random bytes of a job's id.
JOB_CHANCE = 26


def new_job(now: float, chance: bytes) -> JobId:
    """The id of a job that begins at `now` (Unix seconds): its milliseconds in 6 bytes, `chance` in JOB_CHANCE.

    Ids of one moment are neighbours in every index that holds them. Nobody relies on it: an id may be any 32 bytes.
    """
    return JobId(round(now * 1000).to_bytes(6, "big") + chance)


def to_hex(value: bytes) -> str:
    return "0x" + value.hex()


def from_hex(text: str, size: int) -> bytes:
    """Read `size` bytes of 0x-hex (the prefix is optional, case does not matter). Raises ValueError in words."""
    digits = text.removeprefix("0x")
    try:
        value = bytes.fromhex(digits)
    except ValueError:
        raise ValueError(f"{text[:80]!r} is not hexadecimal") from None
    if 2 * len(value) != len(digits):  # spaces between digits would be passed over
        raise ValueError(f"{text[:80]!r} is not hexadecimal")
    if len(value) != size:
        raise ValueError(f"{text[:80]!r} has {len(value)} bytes, expected {size}")
    return value


def address(text: str) -> Address:
    return Address(from_hex(text, 20))


def digest(text: str) -> Digest:
    return Digest(from_hex(text, 32))


def short(value: bytes) -> str:
    """The form shown to people: enough to tell two ids apart."""
    return f"0x{value.hex()[:8]}…"


def short_job(value: bytes) -> str:
    """The same for a job, whose id begins as all ids of that minute do."""
    return f"…{value.hex()[-8:]}"
