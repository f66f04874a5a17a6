"""What audits show of a cheat, measured: the shares from which its profit follows.

audit_page writes them beside the tables of docs/verification.md, from the same numbers.
"""

from collections.abc import Mapping
from pathlib import Path
from statistics import NormalDist
from typing import NamedTuple

import msgspec

from lading_protocol.conduct import Z_LIMIT
from lading_protocol.economics import MILLION

PATH = Path(__file__).with_name("audit_shares.json")
# Of all that was drawn, nothing is surer than this.
SUREST = 0.999
# What fewer than five of 200 jobs show is chance, and nobody may count on it.
LEAST = 0.025


class Shares(msgspec.Struct, frozen=True):
    """Of one case: jobs found guilty, and records suspect by z alone, by number of audits."""

    guilty: float
    alone: dict[int, float]


class Shown(NamedTuple):
    """`caught_ppm` of audits prove it, 0 below LEAST; each adds `drift` standard deviations of an honest
    job to the long record."""

    caught_ppm: int
    drift: float


def write(found: Mapping[str, Mapping[str, Shares]]) -> None:
    """By configuration, then by case and kind ("int4, forged")."""
    rows = [(f"{name}, {case}", one) for name, cases in found.items() for case, one in cases.items()]
    lines = [f"{msgspec.json.encode(name).decode()}: {msgspec.json.encode(one).decode()}" for name, one in rows]
    PATH.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def shown(case: str, kind: str, precision: str) -> Shown:
    """The less of both models. Raises KeyError for what was not measured."""
    kept = msgspec.json.decode(PATH.read_bytes(), type=dict[str, Shares])
    of = [kept[f"{model} {precision}, {case}, {kind}"] for model in ("chat", "second")]
    guilty = min(one.guilty for one in of)
    return Shown(int(MILLION * guilty) if guilty >= LEAST else 0, min(drift(one.alone) for one in of))


def drift(alone: Mapping[int, float]) -> float:
    """z of n audits is normal around drift * sqrt(n): from the largest n at which not every record is suspect."""
    count = max((n for n, share in alone.items() if share < SUREST), default=min(alone))
    beyond = NormalDist().inv_cdf(min(alone[count], SUREST)) if alone[count] > 0 else -Z_LIMIT
    return max(0.0, (Z_LIMIT + beyond) / count**0.5)
