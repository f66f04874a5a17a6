"""The record of a job's audits: what a coordinator shows of them, and what anybody can check of it offline.

Pure. The prompt and the answer are not in it: whoever audits sees them, who reads about the audit does not. Hashes and
addresses are 0x-hex, times Unix seconds, shares millionths, stakes wei in decimal; an infinite limit is null.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from lading_protocol import lots
from lading_protocol.audit import beacon, is_picked
from lading_protocol.eip712 import Domain, unpack
from lading_protocol.errors import LadingError
from lading_protocol.ids import Address, address, digest, from_hex, to_hex
from lading_protocol.proofs import root_from
from lading_protocol.receipts import Receipt, SignedReceipt, receipt_leaf

Text = Annotated[str, Meta(max_length=4000)]
Hex = Annotated[str, Meta(max_length=4096)]
Whole = Annotated[int, Meta(ge=0, le=2**53)]
Small = Annotated[int, Meta(ge=0, le=2**31)]
Moment = Annotated[float, Meta(ge=0, le=1e11)]
Second = Annotated[int, Meta(ge=0, le=10**11)]
State = Literal[
    "unsigned", "waiting", "anchored", "passed", "ordered", "pending", "accused", "disputed", "done", "canary"
]


class Limits(msgspec.Struct, frozen=True):
    """The published limits of a numeric class (lading_protocol.audit.Tolerance)."""

    margin: float | None = None
    relative: float | None = None
    chunk: float | None = None
    prompt: float | None = None


class Round(msgspec.Struct, frozen=True):
    """Where the receipt (or the order, where one was bought) was anchored, and which randomness picked it. `value` is
    empty until it is drawn; `secret` is told once no audit of the round is on its way."""

    n: Whole
    root: Hex
    leaves: Whole
    index: Whole
    path: Annotated[tuple[Hex, ...], Meta(max_length=64)]
    block: Whole
    due: Moment
    waits_for: Text
    source: Text = ""
    value: Hex = ""
    secret: Hex = ""


class Look(msgspec.Struct, frozen=True):
    """One auditor: drawn as number `turn` out of `pool`, and what it found ("" when nothing was heard yet).

    The numbers are those of messages.Finding.
    """

    turn: Small
    auditor: Hex
    pool: Annotated[dict[Hex, Hex], Meta(max_length=10_000)] = {}
    verdict: Literal["", "honest", "guilty", "unknown"] = ""
    code: Text = ""
    reason: Text = ""
    worst: float = 0.0
    position: Whole = 0
    checked: Whole = 0
    flips: Whole = 0
    clipped: float = 0.0
    chunk: float = 0.0
    prompt: float = 0.0
    suspect: bool = False
    at: Moment = 0.0


class Opening(msgspec.Struct, frozen=True):
    """Whether the host opened the sketch it had committed to. `again_at`: when it is asked again, 0 when it is not."""

    tries: Whole
    opened: bool
    again_at: Moment = 0.0


class Court(msgspec.Struct, frozen=True):
    """The dispute on chain. Its deadlines are exclusive, 0 when not set or when the chain did not answer."""

    dispute: Hex
    state: Text
    note: Text
    phase: Text = ""
    commit_by: Second = 0
    reveal_by: Second = 0
    appeal_by: Second = 0
    seats: Whole = 0
    guilty: Whole = 0
    honest: Whole = 0


class HostNow(msgspec.Struct, frozen=True):
    """How the host stands now: the share of its receipts that is checked, its clean audits, suspicion and its price."""

    rate_ppm: Whole
    clean: Whole
    suspect: Text = ""
    barred: Text = ""


class Attempt(msgspec.Struct, frozen=True):
    """`why` it is checked: rate or bought, and at which rate of the host's receipts. `gives_up_at`: when a pending
    audit is dropped because too few can be asked."""

    attempt: Whole
    host: Hex
    first: Whole
    tokens: Whole
    receipt: Hex
    leaf: Hex
    numeric: Text
    limits: Limits | None
    state: State
    verdict: Literal["honest", "guilty", "unknown"] = "unknown"
    reason: Text = ""
    at: Moment = 0.0
    why: Text = ""
    rate_ppm: Whole = 0
    gives_up_at: Moment = 0.0
    standing: HostNow | None = None
    round: Round | None = None
    looks: Annotated[tuple[Look, ...], Meta(max_length=64)] = ()
    opening: Opening | None = None
    court: Court | None = None


class AuditRecord(msgspec.Struct, frozen=True):
    """`court` is the audit court's address on the chain `chain_id`."""

    record: Literal["lading.audit/1"]
    job: Hex
    agent: Hex
    name: Text
    ended: Second
    chain_id: Whole
    court: Hex
    attempts: Annotated[tuple[Attempt, ...], Meta(max_length=1024)]


def faults_of(record: AuditRecord, domain: Domain | None = None) -> list[str]:
    """What in a record contradicts itself, in words; empty when all of it follows.

    `domain` is the audit court's as the reader knows it; without it the record's own word is taken for the network.
    """
    found: list[str] = []
    try:
        stated = Domain(record.chain_id, address(record.court))
    except ValueError as error:
        return [f"the court is no address: {error}"]
    if domain is not None and domain != stated:
        found.append("it is of another network than the one that is set here")
    for attempt in record.attempts:
        for part in (_receipt, _anchor, _draw):
            try:
                found += [f"attempt {attempt.attempt}: {fault}" for fault in part(record, attempt, domain or stated)]
            except (ValueError, LadingError) as error:
                found.append(f"attempt {attempt.attempt}: {error}")
    return found


def _receipt(record: AuditRecord, attempt: Attempt, domain: Domain) -> list[str]:
    if not attempt.receipt:
        return []
    signed = _signed(attempt)
    value, found = signed.value, []
    if to_hex(receipt_leaf(signed)) != attempt.leaf:
        found.append("the leaf is not that of its receipt")
    if signed.signer(domain) != value.host or value.host != address(attempt.host):
        found.append("the receipt is not signed by this host for this network")
    if (value.job, value.attempt, value.agent) != (digest(record.job), attempt.attempt, digest(record.agent)):
        found.append("the receipt is of another job, attempt or agent")
    if (value.first, value.output_tokens) != (attempt.first, attempt.tokens):
        found.append("the receipt speaks of other tokens")
    return found


def _signed(attempt: Attempt) -> SignedReceipt:
    return unpack(Receipt, _bytes(attempt.receipt))


def _anchor(record: AuditRecord, attempt: Attempt, domain: Domain) -> list[str]:
    round_ = attempt.round
    if round_ is None:
        return []
    siblings, leaf = [digest(one) for one in round_.path], digest(attempt.leaf)
    if attempt.why == "bought":
        leaf = lots.order_leaf(leaf, _signed(attempt).value.signer)
    if root_from(leaf, round_.index, round_.leaves, siblings) != digest(round_.root):
        return ["the receipt does not lie under the anchored root"]
    return []


def _draw(record: AuditRecord, attempt: Attempt, domain: Domain) -> list[str]:
    """Whether the randomness picks this receipt and these auditors."""
    round_, leaf = attempt.round, digest(attempt.leaf) if attempt.leaf else b""
    if round_ is None or not round_.value:
        return []
    randomness, found = beacon(digest(round_.root), _bytes(round_.value)), []
    if attempt.why == "rate" and attempt.rate_ppm and not is_picked(randomness, leaf, attempt.rate_ppm):
        found.append("the randomness does not pick this receipt")
    for look in attempt.looks:
        pool = {Address(address(who)): int(stake) for who, stake in look.pool.items()}
        if lots.auditor(randomness, leaf, look.turn, pool) != address(look.auditor):
            found.append(f"the randomness does not name {look.auditor} as auditor {look.turn}")
    return found


def _bytes(text: str) -> bytes:
    return from_hex(text, len(text.removeprefix("0x")) // 2)
