"""A host's long record: what many audits show together that no single one can prove. Pure.

Sums are kept for each host, agent, numeric class and auditor. They cast suspicion and never a slash. What one auditor
says alone is not enough: without the one that weighs most against the host, the rest must still be far out.
"""

from collections.abc import Callable, Iterable, Mapping
from math import inf, isfinite, sqrt

import msgspec

from lading_protocol.audit import CLIP
from lading_protocol.eip712 import Domain
from lading_protocol.errors import BadSignature
from lading_protocol.ids import Address
from lading_protocol.messages import Finding
from lading_protocol.receipts import Finish, SignedReceipt

# Beyond so many standard deviations a record is suspect: one honest record in three hundred thousand, were it normal.
Z_LIMIT = 4.5
# The normal law says nothing about fewer tokens, fewer sketches, or fewer audits that exceed a rare limit.
MIN_TOKENS = 512
MIN_AUDITS = 4
# How long a host has to know which attempts it has had: who asks for one again later makes it sign twice.
MEMORY_SECONDS = 90 * 86_400


class Honest(msgspec.Struct, frozen=True):
    """What honest hosts of a numeric class show. A spread of 0 means: not measured, so not judged.

    `clipped` is the mean margin of a token, cut at audit.CLIP (logits); `clipped_sd` the standard deviation of a whole
    job's sum over the root of its tokens, so that what hangs together within a job is counted. `flips` is the share of
    tokens that the auditor would not have chosen. `chunk` and `chunk_sd` are of a job's largest chunk error. `rare` is
    the share of jobs that pass a rare limit (Tolerance).
    """

    clipped: float = 0.0
    clipped_sd: float = 0.0
    flips: float = 0.0
    chunk: float = 0.0
    chunk_sd: float = 0.0
    rare: float = 0.001


# Of a class whose numbers nobody measures, because they should be equal: only how often they were not counts.
EQUAL = Honest()


class Sums(msgspec.Struct, frozen=True):
    """Of `audits` findings; `sketches` of them compared a sketch, whose largest chunk errors add up to `chunk`."""

    audits: int = 0
    tokens: int = 0
    flips: int = 0
    clipped: float = 0.0
    sketches: int = 0
    chunk: float = 0.0
    rare: int = 0

    def __add__(self, other: "Sums") -> "Sums":
        mine, theirs = msgspec.structs.astuple(self), msgspec.structs.astuple(other)
        return Sums(*(a + b for a, b in zip(mine, theirs, strict=True)))


class Signal(msgspec.Struct, frozen=True):
    """One statistic of a record and how many standard deviations it lies above what is honest."""

    name: str
    z: float
    words: str


def sums_of(finding: Finding, tokens: int) -> Sums | None:
    """What one finding adds to a record of `tokens` output tokens; None when its numbers cannot be."""
    numbers = (finding.clipped, finding.chunk, finding.prompt)
    if not all(isfinite(number) and number >= 0 for number in numbers) or not finding.worst >= 0:
        return None
    checked = finding.checked
    if checked > tokens or finding.flips > checked or finding.clipped > CLIP * finding.flips * (1 + 1e-6) + 1e-9:
        return None
    compared = int(finding.chunk > 0)
    # A chunk that is further off than anything honest proves itself; here it must not drown all others.
    return Sums(1, checked, finding.flips, finding.clipped, compared, min(finding.chunk, 1.0), int(finding.suspect))


def signals(sums: Sums, honest: Honest) -> list[Signal]:
    """The statistics of a record that can be judged."""
    found = []
    n = sums.tokens
    if n >= MIN_TOKENS and honest.clipped_sd > 0:
        z = (sums.clipped - n * honest.clipped) / (honest.clipped_sd * sqrt(n))
        words = f"margins of {sums.clipped / n:.3g} logits a token, honest are {honest.clipped:.3g}"
        found.append(Signal("margins", z, words))
    if n >= MIN_TOKENS and 0 < honest.flips < 1:
        z = (sums.flips - n * honest.flips) / sqrt(n * honest.flips * (1 - honest.flips))
        words = f"{sums.flips} of {n} tokens differ, honest are {100 * honest.flips:.3g} %"
        found.append(Signal("flips", z, words))
    if sums.sketches >= MIN_AUDITS and honest.chunk_sd > 0:
        z = (sums.chunk - sums.sketches * honest.chunk) / (honest.chunk_sd * sqrt(sums.sketches))
        words = f"sketches off by {sums.chunk / sums.sketches:.3g} on average, honest are {honest.chunk:.3g}"
        found.append(Signal("sketches", z, words))
    if sums.rare >= MIN_AUDITS and honest.rare > 0:
        z = (sums.rare - sums.audits * honest.rare) / sqrt(sums.audits * honest.rare)
        words = f"{sums.rare} of {sums.audits} audits beyond what one honest job in {1 / honest.rare:.0f} shows"
        found.append(Signal("rare", z, words))
    return found


def suspicion(records: Mapping[Address, Sums], honest: Honest) -> str:
    """Why a host with these records, one an auditor, is suspect; "" when it is not."""
    whole = _total(records.values())
    for signal in signals(whole, honest):
        if signal.z <= Z_LIMIT:
            continue
        rest = dict(records)
        del rest[max(rest, key=_against(signal.name, rest, honest))]
        left = {one.name: one.z for one in signals(_total(rest.values()), honest)}
        if left.get(signal.name, -inf) > Z_LIMIT:
            return f"{signal.words} (z = {signal.z:.1f}, {len(records)} auditors)"
    return ""


def contradiction(one: SignedReceipt, other: SignedReceipt, domain: Domain) -> str:
    """Why two receipts do not prove that their host signed twice for one attempt; "" when they do.

    A final receipt that was only signed again, later and for the same, is no contradiction. `domain` is the audit
    court's: receipts of another chain prove nothing here.
    """
    a, b = one.value, other.value
    if (a.host, a.job, a.attempt) != (b.host, b.job, b.attempt):
        return "they are not of one host, job and attempt"
    if Finish.RUNNING in (a.finish, b.finish):
        return "one of them was signed while tokens still flowed"
    if abs(a.issued_at - b.issued_at) > MEMORY_SECONDS:
        return f"they are more than {MEMORY_SECONDS // 86_400} days apart, for which a host remembers its attempts"
    if msgspec.structs.replace(a, issued_at=0) == msgspec.structs.replace(b, issued_at=0):
        return "they say the same"
    try:
        signed = one.signer(domain) == a.host and other.signer(domain) == b.host
    except BadSignature as error:
        return f"a signature is none ({error.message.rstrip('.')})"
    return "" if signed else "one of them is not signed by its host for this network"


def _total(records: Iterable[Sums]) -> Sums:
    total = Sums()
    for one in records:
        total += one
    return total


def _against(name: str, records: Mapping[Address, Sums], honest: Honest) -> Callable[[Address], tuple[float, Address]]:
    """How much an auditor's record weighs against the host: what it adds above the honest mean."""

    def weight(who: Address) -> tuple[float, Address]:
        one = records[who]
        above = {
            "margins": one.clipped - one.tokens * honest.clipped,
            "flips": one.flips - one.tokens * honest.flips,
            "sketches": one.chunk - one.sketches * honest.chunk,
            "rare": one.rare - one.audits * honest.rare,
        }
        return above[name], who

    return weight
