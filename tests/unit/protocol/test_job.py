"""The payer's machine where a host tries to be paid for what it did not do."""

import msgspec

from factories import NOW, chat_request, embed_request, job_id, key, known_offer, network
from lading_protocol import job
from lading_protocol.messages import Accept, Fail, Request, Vectors
from lading_protocol.pricing import worst_case

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
