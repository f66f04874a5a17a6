"""Which host gets a job, and what the others are told."""

import msgspec
import pytest

from factories import NOW, chat_request, embed_request, key, known_offer
from lading.core.matching import Candidate, Filters, Want, rank
from lading_protocol.ids import Wei
from lading_protocol.messages import ChatRequest, Message
from lading_protocol.pricing import Price, prompt_bound, worst_case

CHEAP = Candidate(known_offer(key("cheap"), price_in=10, price_out=10), beat_at=NOW)
DEAR = Candidate(known_offer(key("dear"), price_in=20, price_out=20), beat_at=NOW)
WANT = Want(chat_request())


def hosts(candidates: list[Candidate]) -> list[bytes]:
    return [candidate.offer.host for candidate in candidates]


def test_the_cheapest_host_wins_whatever_the_order() -> None:
    for candidates in ([CHEAP, DEAR], [DEAR, CHEAP]):
        ranked, lost = rank(candidates, WANT, NOW)
        assert hosts(ranked) == [key("cheap").address, key("dear").address]
        assert lost == []


def test_a_full_host_comes_after_one_with_room() -> None:
    full = msgspec.structs.replace(CHEAP, free=0, waiting=2)
    ranked, _ = rank([full, DEAR], WANT, NOW)
    assert hosts(ranked) == [key("dear").address, key("cheap").address]


def test_a_suspect_host_comes_after_all_that_have_room_and_before_those_that_have_none() -> None:
    suspect = msgspec.structs.replace(CHEAP, doubted=True)
    ranked, lost = rank([suspect, DEAR], WANT, NOW)
    assert hosts(ranked) == [key("dear").address, key("cheap").address]
    full = msgspec.structs.replace(DEAR, free=0, waiting=2)
    assert hosts(rank([full, suspect], WANT, NOW)[0]) == [key("cheap").address, key("dear").address]
    assert lost == []


def test_failures_weigh_as_much_as_a_quarter_of_the_price_each() -> None:
    failing = msgspec.structs.replace(CHEAP, failures=3)
    assert hosts(rank([failing, DEAR], WANT, NOW)[0])[0] == key("cheap").address
    failing = msgspec.structs.replace(CHEAP, failures=5)
    assert hosts(rank([failing, DEAR], WANT, NOW)[0])[0] == key("dear").address


def test_of_equal_prices_the_nearest_wins_and_distance_never_outweighs_half_the_price() -> None:
    near = Candidate(known_offer(key("near"), region="eu-de"), beat_at=NOW)
    same = Candidate(known_offer(key("same"), region="eu-fr"), beat_at=NOW)
    far = Candidate(known_offer(key("far"), region="us-east"), beat_at=NOW)
    unknown = Candidate(known_offer(key("unknown")), beat_at=NOW)
    want = Want(chat_request(), filters=Filters(near="eu-de"))
    ranked = hosts(rank([unknown, far, same, near, CHEAP], want, NOW)[0])
    assert ranked[:3] == [key("cheap").address, key("near").address, key("same").address]
    assert len(ranked) == 5


def test_what_was_emitted_is_not_paid_for_again() -> None:
    """A resumed stream no longer pays for its prompt: the host with the cheaper output is the cheaper one."""
    prompt = Candidate(known_offer(key("prompt"), price_in=1, price_out=30), beat_at=NOW)
    output = Candidate(known_offer(key("output"), price_in=30, price_out=20), beat_at=NOW)
    request = chat_request("x" * 600, max_tokens=100)
    assert hosts(rank([prompt, output], Want(request), NOW)[0])[0] == key("prompt").address
    assert hosts(rank([prompt, output], Want(request, emitted=50), NOW)[0])[0] == key("output").address


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"barred": "is jailed until tomorrow"}, "barred"),
        ({"beat_at": NOW - 60}, "silent"),
        ({"shunned_until": NOW + 5}, "shunned"),
        ({"offer": known_offer(key("cheap"), operations=("embed",))}, "operation"),
        ({"offer": known_offer(key("cheap"), context=64)}, "context"),
        ({"offer": known_offer(key("cheap"), now=NOW - 7200)}, "expired"),
        ({"sunset_at": int(NOW) - 5}, "terms"),
        ({"sunset_at": int(NOW) + 5}, "terms"),
    ],
)
def test_a_host_that_cannot_serve_is_told_why(change: dict[str, object], code: str) -> None:
    ranked, lost = rank([msgspec.structs.replace(CHEAP, **change)], WANT, NOW)
    assert ranked == []
    assert [one.code for one in lost] == [code]
    assert str(lost[0]).startswith("host 0x")


@pytest.mark.parametrize(
    ("filters", "code"),
    [
        (Filters(tiers=frozenset({"C", "V"})), "tier"),
        (Filters(tiers=frozenset({"C", "P"}), region="eu", assurance=frozenset({"measured"})), None),
        (Filters(region="eu-fr"), "region"),
        (Filters(region="e"), "region"),
        (Filters(assurance=frozenset({"exact"})), "assurance"),
    ],
)
def test_what_a_consumer_insists_on_is_respected(filters: Filters, code: str | None) -> None:
    offer = known_offer(key("cheap"), tier="P", region="eu-de", numeric="onnx-f32-cpu")
    ranked, lost = rank([Candidate(offer, beat_at=NOW)], Want(chat_request(), filters=filters), NOW)
    assert [one.code for one in lost] == ([code] if code else [])
    assert len(ranked) == (code is None)


def test_a_price_limit_and_hosts_already_tried_are_respected() -> None:
    limit = Price(Wei(15), Wei(15))
    assert hosts(rank([CHEAP, DEAR], Want(chat_request(), max_price=limit), NOW)[0]) == [key("cheap").address]
    tried = Want(chat_request(), excluded=frozenset({key("cheap").address}))
    assert hosts(rank([CHEAP, DEAR], tried, NOW)[0]) == [key("dear").address]


def test_the_prompt_bound_is_never_below_one_token_a_byte() -> None:
    text = "naïve ☃" * 10
    request = ChatRequest((Message("user", text),), 8, chat_request().sampler)
    assert prompt_bound(request) >= len(text.encode())
    assert prompt_bound(embed_request(text)) >= len(text.encode())


def test_no_more_money_is_bound_than_a_host_can_bill_for() -> None:
    """A request of megabytes, which every host refuses, must not bind a whole deposit to the first of them."""
    short, long = chat_request("hello", max_tokens=20), chat_request("word " * 100_000, max_tokens=100_000)
    assert worst_case(short, 1024) == (prompt_bound(short), 20)
    assert worst_case(long, 1024) == (1024, 1024)
    assert worst_case(embed_request("a" * 9000, "b"), 256) == (256 + prompt_bound(embed_request("b")), 0)
