"""The payer's machine where a host tries to be paid for what it did not do."""

import msgspec

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
    honest, effects = job.apply(opened(request), Accept(most, bytes(32)), DOMAIN, NOW)
    assert effects == []
    assert honest.prompt_tokens == most
    caught, effects = job.apply(opened(request), Accept(most + 1, bytes(32)), DOMAIN, NOW)
    assert isinstance(effects[0], job.Resume)
    assert effects[0].blame
    assert caught.attempt is None


def test_no_request_has_more_prompt_than_the_context() -> None:
    request = chat_request("word " * 4000)
    _, effects = job.apply(opened(request), Accept(513, bytes(32)), DOMAIN, NOW)
    assert isinstance(effects[0], job.Resume)


def test_a_part_of_the_vectors_is_worth_nothing() -> None:
    state, _ = job.apply(opened(embed_request("a", "b")), Accept(6, bytes(32)), DOMAIN, NOW)
    state, effects = job.apply(state, Vectors(0, 4, bytes(16)), DOMAIN, NOW)
    assert effects == []
    assert job.owed(state) == 0
    state, _ = job.apply(state, Vectors(1, 4, bytes(16)), DOMAIN, NOW)
    assert job.owed(state) == 0
    _, effects = job.apply(state, Fail("engine_died", "gone"), DOMAIN, NOW)
    assert [type(effect) for effect in effects] == [job.Resume]
    assert not any(isinstance(effect, job.Owe) for effect in effects)


def test_states_are_values() -> None:
    state = opened(chat_request())
    before = msgspec.structs.asdict(state)
    job.apply(state, Accept(3, bytes(32)), DOMAIN, NOW)
    assert msgspec.structs.asdict(state) == before


def done(bare: bool, change: dict[str, object] | None = None, signature: bytes = b"") -> list[job.Effect]:
    """What comes of a final receipt of these words, where the payer said that it may be bare or did not."""
    request = chat_request(max_tokens=2)
    state = job.begin_attempt(job.start(job.JobSpec(job_id(), request, key("payer").address)), OFFER, 0, bare=bare)
    state, _ = job.apply(state, Accept(3, bytes(32)), DOMAIN, NOW)
    rolling = roll(rolling_start(job_id()), (7, 8))
    state, _ = job.apply(state, Tokens(0, (7, 8), "ab", rolling), DOMAIN, NOW)
    offer = OFFER.offer
    names = (job_id(), 0, request_hash(request), offer.agent, offer.terms, offer.host, key("payer").address)
    counts = (0, 0, 3, 2, bytes(32), commitment(job_id(), (7, 8), 0), offer.price_in, offer.price_out)
    receipt = Receipt(*names, *counts, job.owed(state), Finish.LENGTH, int(NOW), TIERS.index(OFFER.detail.tier))
    receipt = msgspec.structs.replace(receipt, **(change or {}))
    packed = receipt.words() + (signature or (b"" if bare else receipt.sign(DOMAIN, key("host")).signature))
    if change and change.get("finish") == Finish.RUNNING:
        return job.apply(state, Chunk(packed), DOMAIN, NOW)[1]
    return job.apply(state, Done(packed), DOMAIN, NOW)[1]


def test_a_bare_receipt_ends_a_job_that_asked_for_it() -> None:
    for bare in (True, False):
        (finished,) = done(bare)
        assert isinstance(finished, job.Finished)
        assert bool(finished.receipt.signature) is not bare
    (finished,) = done(True, signature=done(False)[0].receipt.signature)  # type: ignore[union-attr]
    assert isinstance(finished, job.Finished), "a host may sign all the same"
    assert len(finished.receipt.signature) == 65


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
    request = chat_request(max_tokens=2)
    state, _ = job.apply(opened(request), Accept(3, bytes(32)), DOMAIN, NOW)
    words = bytes(job.BARE)
    for unasked in (Done(words), Chunk(words)):
        _, effects = job.apply(state, unasked, DOMAIN, NOW)
        assert isinstance(effects[0], job.Resume)
        assert effects[0].blame
