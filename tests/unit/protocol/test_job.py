"""The payer's machine where a host tries to be paid for what it did not do."""

import msgspec
import pytest

from factories import NOW, chat_request, embed_request, job_id, key, known_offer, network
from lading_protocol import job
from lading_protocol.messages import Accept, Chunk, Done, Fail, Request, Tokens, Vectors, request_hash
from lading_protocol.pricing import worst_case
from lading_protocol.receipts import TIERS, Finish, Receipt
from lading_protocol.transcript import commitment, roll, rolling_start

DOMAIN = network().court_domain
OFFER = known_offer(key("host"), price_in=5_000, price_out=7_000, context=512)


def opened(request: Request) -> job.JobState:
    return job.begin_attempt(job.start(job.JobSpec(job_id(), request, key("payer").address)), OFFER, 0)


def test_a_host_cannot_count_more_prompt_than_the_request_has_bytes() -> None:
    request = chat_request("Hi")
    most, _ = worst_case(request, 512)
    honest = opened(request)
    effects = job.apply(honest, Accept(most, bytes(32)), DOMAIN, NOW)
    assert effects == []
    assert honest.prompt_tokens == most
    caught = opened(request)
    effects = job.apply(caught, Accept(most + 1, bytes(32)), DOMAIN, NOW)
    assert isinstance(effects[0], job.Resume)
    assert effects[0].blame
    assert caught.attempt is None


def test_no_request_has_more_prompt_than_the_context() -> None:
    request = chat_request("word " * 4000)
    effects = job.apply(opened(request), Accept(513, bytes(32)), DOMAIN, NOW)
    assert isinstance(effects[0], job.Resume)


def test_a_part_of_the_vectors_is_worth_nothing() -> None:
    state = opened(embed_request("a", "b"))
    job.apply(state, Accept(6, bytes(32)), DOMAIN, NOW)
    effects = job.apply(state, Vectors(0, 4, bytes(16)), DOMAIN, NOW)
    assert effects == []
    assert job.owed(state) == 0
    job.apply(state, Vectors(1, 4, bytes(16)), DOMAIN, NOW)
    assert job.owed(state) == 0
    effects = job.apply(state, Fail("engine_died", "gone"), DOMAIN, NOW)
    assert [type(effect) for effect in effects] == [job.Resume]
    assert job.owed(state) == 0


def test_attempts_that_race_share_nothing() -> None:
    asked = job.start(job.JobSpec(job_id(), chat_request(), key("payer").address))
    first, rival = (job.begin_attempt(asked, OFFER, 0, number) for number in range(2))
    job.apply(first, Accept(3, bytes(32)), DOMAIN, NOW)
    (delivered,) = job.apply(first, Tokens(0, (7,), "a", roll(rolling_start(job_id()), (7,))), DOMAIN, NOW)
    assert isinstance(delivered, job.Deliver)
    assert (first.emitted, job.owed(first) > 0) == ([7], True)
    for other in (asked, rival):
        assert (other.emitted, job.owed(other), other.prompt_hash) == ([], 0, b"")
    assert rival.attempt is not None
    assert (rival.attempt.number, rival.attempt.accepted, rival.rolling) == (1, None, asked.rolling)
    later = job.begin_attempt(first, OFFER, 0)
    job.apply(later, Accept(4, bytes(32)), DOMAIN, NOW)
    assert (later.attempt, first.attempt is None) == (None, False), "it reads another prompt; the one before goes on"


@pytest.mark.parametrize("told", ["words", "date", "marks", "finish", "padding", "short"])
def test_nothing_of_a_paper_that_lies_counts(told: str) -> None:
    """Neither is the receipt before it lost, nor is the attempt owed more or less."""
    request = chat_request(max_tokens=2)
    state = job.begin_attempt(job.start(job.JobSpec(job_id(), request, key("payer").address)), OFFER, 0)
    attempt = state.attempt
    assert attempt is not None
    job.apply(state, Accept(3, bytes(32)), DOMAIN, NOW)
    job.apply(state, Tokens(0, (7, 8), "ab", roll(rolling_start(job_id()), (7, 8))), DOMAIN, NOW)
    before = job.owed(state)
    changes = {"words": {"output_tokens": 1}, "date": {"issued_at": int(NOW) - 999}, "finish": {"finish": 0}}
    receipt = msgspec.structs.replace(honest_receipt(state, request), **changes.get(told, {}))
    packed = receipt.sign(DOMAIN, key("host")).pack()
    if told == "padding":
        at = 32 * Receipt.__struct_fields__.index("finish")
        packed = packed[:at] + b"\1" + packed[at + 1 :]
    packed = packed[: job.BARE - 1] if told == "short" else packed
    (resume,) = job.apply(state, Done(packed, bytes(32) if told == "marks" else b""), DOMAIN, NOW)
    assert isinstance(resume, job.Resume)
    assert resume.blame
    assert (state.attempt, state.last, state.finish) == (None, attempt, Finish.RUNNING)
    assert (attempt.receipt, attempt.marks, attempt.signed, job.owed(state)) == (b"", (), 0, before)


def honest_receipt(state: job.JobState, request: Request) -> Receipt:
    """Over the tokens 7 and 8."""
    offer = OFFER.offer
    names = (job_id(), 0, request_hash(request), offer.agent, offer.terms, offer.host, key("payer").address)
    counts = (0, 0, 3, 2, bytes(32), commitment(job_id(), (7, 8), 0), offer.price_in, offer.price_out)
    return Receipt(*names, *counts, job.owed(state), Finish.LENGTH, int(NOW), TIERS.index(OFFER.detail.tier))


def done(bare: bool, change: dict[str, object] | None = None, signature: bytes = b"") -> list[job.Effect]:
    """What comes of a final receipt of these words, where the payer said that it may be bare or did not."""
    request = chat_request(max_tokens=2)
    state = job.begin_attempt(job.start(job.JobSpec(job_id(), request, key("payer").address)), OFFER, 0, bare=bare)
    job.apply(state, Accept(3, bytes(32)), DOMAIN, NOW)
    rolling = roll(rolling_start(job_id()), (7, 8))
    job.apply(state, Tokens(0, (7, 8), "ab", rolling), DOMAIN, NOW)
    receipt = honest_receipt(state, request)
    receipt = msgspec.structs.replace(receipt, **(change or {}))
    packed = receipt.words() + (signature or (b"" if bare else receipt.sign(DOMAIN, key("host")).signature))
    if change and change.get("finish") == Finish.RUNNING:
        return job.apply(state, Chunk(packed), DOMAIN, NOW)
    return job.apply(state, Done(packed), DOMAIN, NOW)


def test_a_bare_receipt_ends_a_job_that_asked_for_it() -> None:
    for bare in (True, False):
        (finished,) = done(bare)
        assert isinstance(finished, job.Finished)
        assert (len(finished.receipt) == job.BARE) is bare
    (finished,) = done(True, signature=done(False)[0].receipt[job.BARE :])  # type: ignore[union-attr]
    assert isinstance(finished, job.Finished), "a host may sign all the same"
    assert len(finished.receipt) == job.BARE + 65


def test_a_bare_receipt_is_a_lie_where_it_is_wrong_or_nobody_asked_for_it() -> None:
    (wrong,) = done(True, {"output_tokens": 3, "amount": 1})
    assert isinstance(wrong, job.Resume)
    assert wrong.blame
    assert wrong.reason == "The receipt is wrong in: output_tokens, amount."
    for signature in (bytes(1), bytes(64), bytes(65), bytes(101), bytes(416)):
        (short,) = done(True, signature=signature)
        assert isinstance(short, job.Resume)
        assert short.blame
    (running,) = done(True, {"finish": Finish.RUNNING})
    assert isinstance(running, job.Resume), "that of a chunk is evidence, and comes signed"
    words = bytes(job.BARE)
    for unasked in (Done(words), Chunk(words)):
        state = opened(chat_request(max_tokens=2))
        job.apply(state, Accept(3, bytes(32)), DOMAIN, NOW)
        effects = job.apply(state, unasked, DOMAIN, NOW)
        assert isinstance(effects[0], job.Resume)
        assert effects[0].blame
