"""Headers that say what a consumer insists on beside OpenAI's fields."""

import pytest

from lading.core.matching import Filters
from lading_coordinator.core.insisted import NOTHING, Insisted, read_headers
from lading_coordinator.errors import ApiError
from lading_protocol.ids import Wei
from lading_protocol.pricing import Price


def said(**given: str) -> Insisted:
    return read_headers(
        {f"x-lading-{name.replace('_', '-')}".encode(): value.encode() for name, value in given.items()}
    )


def test_nothing_said_wishes_nothing() -> None:
    assert read_headers({b"authorization": b"Bearer x"}) is NOTHING
    assert said(job="0xabc") == NOTHING


def test_where_consumers_usually_are_holds_until_one_says_otherwise() -> None:
    usual = Insisted(filters=Filters(near="eu-de"))
    assert read_headers({}, usual) is usual
    assert read_headers({b"x-lading-hedge": b"1"}, usual).filters.near == "eu-de"
    assert read_headers({b"x-lading-near": b"us"}, usual).filters.near == "us"


def test_every_wish_reaches_the_job() -> None:
    found = said(
        band="Batch",
        hedge="1",
        tier="G, C",
        region="eu",
        near="eu-de",
        assurance="exact,measured",
        max_price_output="70",
    )
    filters = Filters(frozenset("CG"), "eu", "eu-de", frozenset({"exact", "measured"}))
    assert (found.batch, found.hedge, found.filters) == (True, True, filters)
    assert found.max_price is not None
    assert found.max_price.output == 70
    assert found.max_price.input > 10**29  # the other one stays free
    assert said(max_price_input="5", max_price_output="6").max_price == Price(Wei(5), Wei(6))


def test_who_asks_in_a_form_of_a_later_version_gets_the_newest_that_is_known() -> None:
    assert [said(ids=one).ids for one in ("0", "1", "2", "3", "17")] == [0, 1, 2, 2, 2]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("band", "urgent"),
        ("hedge", "perhaps"),
        ("ids", "all"),
        ("ids", "-1"),
        ("ids", "9" * 31),
        ("tier", "X"),
        ("assurance", "exact;measured"),
        ("region", "e u"),
        ("near", "a" * 65),
        ("max_price_input", "-1"),
        ("max_price_output", "1e9"),
        ("max_price_output", "9" * 31),
        ("region", "\u00b2"),
    ],
)
def test_a_bad_one_is_named(name: str, value: str) -> None:
    with pytest.raises(ApiError) as refusal:
        said(**{name: value})
    assert refusal.value.status == 400
    assert f"x-lading-{name.replace('_', '-').partition('-output')[0]}" in refusal.value.message
