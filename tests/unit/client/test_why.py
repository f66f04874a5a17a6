"""What a host that asks is told about the jobs it did not get."""

import random
from typing import Any

import pytest

from factories import NOW, chat_request, key, unsigned_offer
from lading.core.matching import Filters, Want
from lading.core.why import SLICES, WINDOW
from lading.dispatch.directory import Directory
from lading_protocol.ids import Address, AgentId, Wei
from lading_protocol.pricing import Price

AGENT = AgentId(b"\xaa" * 32)
BEST, OTHER = key("best").address, key("other").address
WANT = Want(chat_request())


class Market:
    """Two hosts; `ask` makes choices a second apart."""

    def __init__(self, price: int = 130, **detail: Any) -> None:
        self.directory = Directory(needs_beats=True)
        self.rng = random.Random(7)
        self.now = NOW
        self.beating = {BEST, OTHER}
        self.free = {BEST: 4, OTHER: 4}
        self.directory.put(unsigned_offer(BEST, 100, 100))
        self.directory.put(unsigned_offer(OTHER, price, price, **detail))

    def ask(self, count: int, want: Want = WANT, pause: float = 1.0) -> list[Address | None]:
        got = []
        for _ in range(count):
            for host in sorted(self.beating):
                self.directory.beat(host, self.free[host], 0, self.now)
            pick = self.directory.choose(AGENT, want, self.now, self.rng)
            got.append(None if pick is None else pick.offer.host)
            self.now += pause
        return got

    def told(self, host: Address = OTHER) -> list[tuple[str, int, str]]:
        losses = self.directory.losses(host, self.now)[AGENT]
        assert losses.won + sum(one.count for one in losses.reasons) == losses.jobs
        return [(one.code, one.count, one.words) for one in losses.reasons]


def test_a_price_above_the_best_is_named_with_what_the_best_cost() -> None:
    market = Market(price=130)
    assert market.ask(40) == [BEST] * 40
    assert market.told() == [("price", 40, "your price was 30 % above that of the host that got the job")]
    losses = market.directory.losses(OTHER, market.now)[AGENT]
    assert (losses.jobs, losses.won, losses.price) == (40, 0, Price(Wei(100), Wei(100)))
    assert market.told(BEST) == []


def test_an_overdue_heartbeat_counts_apart_from_the_price() -> None:
    market = Market(price=90)
    market.ask(3)
    market.beating = {BEST}
    assert market.ask(14)[-1] == BEST
    market.beating = {BEST, OTHER}
    market.ask(1)
    told = {code: (count, words) for code, count, words in market.told()}
    assert told["silent"] == (9, "your heartbeat was overdue for 10 s")
    assert set(told) <= {"silent", "shared"}


@pytest.mark.parametrize(
    ("detail", "filters", "code", "words"),
    [
        ({"tier": "W"}, Filters(tiers=frozenset({"P"})), "tier", "your offer isolates agents by tier W; wanted is P"),
        ({"region": "us"}, Filters(near="eu"), "price", "your price was 30 % above that of the host that got the job"),
        ({"context": 32}, Filters(), "context", "your offer has room for 32 tokens, and the answer alone may take 64"),
        (
            {"numeric": "onnx-f32-cpu"},
            Filters(assurance=frozenset({"unverified"})),
            "assurance",
            "your offer gives answers that are measured; wanted is unverified",
        ),
    ],
)
def test_what_a_consumer_insisted_on_is_named(detail: dict[str, Any], filters: Filters, code: str, words: str) -> None:
    market = Market(**detail)
    market.ask(2, Want(chat_request(), filters=filters))
    assert market.told() == [(code, 2, words)]


def test_full_slots_failures_and_bars_are_named() -> None:
    market = Market(price=50)
    market.free[OTHER] = 0
    market.ask(3)
    assert market.told()[0][:2] == ("full", 3)
    failing = Market(price=95)
    for _ in range(2):
        failing.directory.failed(OTHER, failing.now, blame=False)
    failing.ask(5)
    assert failing.told()[0][:2] == ("shunned", 5)
    failing.now += 100
    failing.ask(5)
    assert ("failures", 5, "2 failures in a row count as 50 % on your price") in failing.told()
    barred = Market(price=50)
    barred.directory.bar(OTHER, "is jailed until tomorrow")
    barred.ask(2)
    assert barred.told() == [("barred", 2, "this host is jailed until tomorrow")]


def test_equal_prices_are_told_that_another_answers_sooner() -> None:
    market = Market(price=100)
    got = market.ask(60)
    assert {BEST, OTHER} == set(got)
    told = {code: count for code, count, _ in market.told()}
    assert set(told) <= {"speed", "shared"}
    assert sum(told.values()) == got.count(BEST)


def test_what_is_kept_is_bounded_and_counts_stay_whole() -> None:
    """A hundred thousand choices take the room of as many as there are slices, and none is lost from the count."""
    market = Market(price=130)
    market.ask(5_000, pause=0.05)
    losses = market.directory.losses(OTHER, market.now)[AGENT]
    assert losses.jobs == 5_000
    assert sum(one.count for one in losses.reasons) == 5_000
    assert len(market.directory._choices[AGENT]._slices) <= SLICES
    market.now += WINDOW + 1
    assert market.directory.losses(OTHER, market.now)[AGENT].jobs == 0


def test_agents_that_nobody_offers_leave_no_trace() -> None:
    market = Market()
    for n in range(50):
        assert market.directory.choose(AgentId(n.to_bytes(32, "big")), WANT, NOW, market.rng) is None
    assert market.directory._choices == {}
