"""A host's long record: what honest noise never does, what a small cheat cannot hide, and what one liar cannot fake."""

import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from factories import job_id, key, network
from lading_protocol.audit import CLIP
from lading_protocol.conduct import MEMORY_SECONDS, Honest, Sums, contradiction, sums_of, suspicion
from lading_protocol.ids import Address
from lading_protocol.messages import Finding
from lading_protocol.receipts import Finish, Receipt

HONEST = Honest(clipped=2e-5, clipped_sd=6e-4, flips=0.003, chunk=0.006, chunk_sd=0.002, rare=0.001)
AUDITORS = [Address(bytes([n]) * 20) for n in range(1, 9)]
TOKENS = 128


def job(rng: random.Random, flips: float, chunk: float) -> Sums:
    """One audited job of a host that flips this share of tokens, each by a small margin."""
    flipped = sum(rng.random() < flips for _ in range(TOKENS))
    clipped = sum(min(rng.expovariate(1 / 0.007), CLIP) for _ in range(flipped))
    return Sums(1, TOKENS, flipped, clipped, 1, rng.gauss(chunk, 0.002), int(rng.random() < HONEST.rare))


def record(rng: random.Random, jobs: int, flips: float, chunk: float) -> dict[Address, Sums]:
    held: dict[Address, Sums] = {}
    for _ in range(jobs):
        who = rng.choice(AUDITORS)
        held[who] = held.get(who, Sums()) + job(rng, flips, chunk)
    return held


def test_honest_records_are_not_suspect() -> None:
    rng = random.Random(5)
    found = [suspicion(record(rng, rng.randint(1, 200), HONEST.flips, HONEST.chunk), HONEST) for _ in range(400)]
    assert sum(bool(reason) for reason in found) <= 4


@pytest.mark.parametrize(
    ("flips", "chunk", "jobs", "word"),
    [(0.0095, 0.006, 60, "tokens"), (0.003, 0.009, 40, "sketches"), (0.023, 0.006, 12, "tokens")],
    ids=["forged fp8", "plain int8", "forged int4"],
)
def test_a_small_cheat_that_no_single_audit_proves_shows_over_many(
    flips: float, chunk: float, jobs: int, word: str
) -> None:
    rng = random.Random(6)
    reasons = [suspicion(record(rng, jobs, flips, chunk), HONEST) for _ in range(50)]
    assert sum(bool(reason) for reason in reasons) >= 49
    assert any(word in reason for reason in reasons)


@given(st.integers(0, 2**32), st.integers(1, 150))
def test_one_lying_auditor_makes_nobody_suspect(seed: int, jobs: int) -> None:
    rng = random.Random(seed)
    held = record(rng, jobs, HONEST.flips / 4, HONEST.chunk - HONEST.chunk_sd)
    liar = rng.choice(AUDITORS)
    held[liar] = Sums(50, 50 * TOKENS, 50 * TOKENS, CLIP * 50 * TOKENS, 50, 50.0, 50)
    assert suspicion(held, HONEST) == ""


def test_nothing_is_judged_that_was_not_measured() -> None:
    held = {who: Sums(9, 9 * TOKENS, 900, 40.0, 9, 9.0, 0) for who in AUDITORS}
    assert suspicion(held, HONEST)
    assert suspicion(held, Honest()) == ""
    assert suspicion({}, HONEST) == ""


numbers = st.floats(allow_nan=True, allow_infinity=True, width=64)


@given(st.integers(0, 500), st.integers(0, 500), numbers, numbers, numbers, numbers, st.integers(0, 300))
def test_hostile_numbers_add_little_or_nothing(
    checked: int, flips: int, clipped: float, chunk: float, prompt: float, worst: float, tokens: int
) -> None:
    finding = Finding(bytes(32), 1, "ok", "", worst, 0, checked, flips, clipped, chunk, prompt)
    added = sums_of(finding, tokens)
    if added is None:
        return
    assert 0 <= added.flips <= added.tokens == checked <= tokens
    assert 0 <= added.clipped <= CLIP * tokens + 1e-6
    assert 0 <= added.chunk <= 1


def receipt(**changes: object) -> Receipt:
    value = Receipt(
        job=job_id(),
        attempt=0,
        request=bytes(32),
        agent=bytes(32),
        terms=bytes(32),
        host=key("host").address,
        signer=key("session").address,
        epoch=0,
        first=0,
        prompt_tokens=4,
        output_tokens=8,
        prompt_hash=bytes(32),
        commitment=bytes(32),
        price_in=1,
        price_out=1,
        amount=1,
        finish=int(Finish.STOP),
        issued_at=7,
    )
    return msgspec.structs.replace(value, **changes)


def test_two_final_receipts_for_one_attempt_are_proof_and_little_else_is() -> None:
    court = network().court_domain
    one = receipt().sign(court, key("host"))
    other = receipt(output_tokens=9).sign(court, key("host"))
    assert contradiction(one, other, court) == ""
    assert contradiction(other, one, court) == ""
    late = receipt(output_tokens=9, issued_at=7 + MEMORY_SECONDS).sign(court, key("host"))
    assert contradiction(one, late, court) == contradiction(late, one, court) == ""
    for twin, word in (
        (receipt().sign(court, key("host")), "the same"),
        (receipt(issued_at=8).sign(court, key("host")), "the same"),
        (receipt(output_tokens=9, finish=int(Finish.RUNNING)).sign(court, key("host")), "flowed"),
        (receipt(output_tokens=9, attempt=1).sign(court, key("host")), "attempt"),
        (receipt(output_tokens=9, job=job_id("b")).sign(court, key("host")), "job"),
        (receipt(output_tokens=9, issued_at=7 + MEMORY_SECONDS + 1).sign(court, key("host")), "90 days"),
        (receipt(output_tokens=9).sign(court, key("enemy")), "not signed"),
        (receipt(output_tokens=9).sign(network(chain_id=1).court_domain, key("host")), "not signed"),
    ):
        assert word in contradiction(one, twin, court)
