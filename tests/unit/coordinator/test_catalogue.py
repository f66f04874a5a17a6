"""Names of agents: digests are exact, names belong to their first publisher, versions tell revisions apart."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factories import NOW, key, known_offer
from lading_coordinator.core.bucket import Bucket
from lading_coordinator.core.catalogue import Catalogue, Entry, model_tree
from lading_coordinator.errors import ApiError
from lading_protocol.ids import AgentId, to_hex


def entry(label: str, name: str = "chat", version: str = "1", at: int = 1, publisher: str = "maker") -> Entry:
    agent = AgentId(label.encode().ljust(32, b"\0"))
    return Entry(agent, name, version, key(publisher).address, ("chat",), 2048, at)


OLD, NEW = entry("old", version="1", at=1), entry("new", version="2", at=5)


def find(catalogue: Catalogue, model: str, *alive: Entry) -> Entry:
    return catalogue.resolve(model, lambda agent: agent in {one.agent for one in alive})


def test_a_name_means_the_newest_agent_that_has_an_offer() -> None:
    catalogue = Catalogue([NEW, OLD])
    assert find(catalogue, "chat", OLD, NEW) is NEW
    assert find(catalogue, "chat", OLD) is OLD
    assert find(catalogue, "chat") is NEW
    assert find(catalogue, "chat@1", OLD, NEW) is OLD
    assert find(catalogue, to_hex(OLD.agent), NEW) is OLD
    assert find(catalogue, to_hex(OLD.agent).upper().replace("0X", "0x"), NEW) is OLD


def test_nobody_can_take_over_a_name() -> None:
    thief = entry("thief", version="9", at=9, publisher="thief")
    catalogue = Catalogue([OLD, thief])
    assert find(catalogue, "chat", OLD, thief) is OLD
    assert find(catalogue, to_hex(thief.agent), thief) is thief
    with pytest.raises(ApiError):
        find(catalogue, "chat@9", thief)


@pytest.mark.parametrize("model", ["", "else", "chat@7", "0x12", "0x" + "zz" * 32, "0x" + "11" * 32, "chat@"])
def test_an_unknown_model_is_404_with_what_is_known(model: str) -> None:
    catalogue = Catalogue([OLD])
    if model == "chat@":
        assert find(catalogue, model) is OLD
        return
    with pytest.raises(ApiError) as caught:
        find(catalogue, model)
    assert (caught.value.status, caught.value.code, caught.value.param) == (404, "model_not_found", "model")
    assert "chat" in caught.value.hint


def test_the_model_object_shows_the_cheapest_offer_exactly() -> None:
    offers = [
        known_offer(key("a"), price_in=3 * 10**18, price_out=10**18, now=NOW),
        known_offer(key("b"), price_in=2 * 10**18, price_out=15 * 10**17, now=NOW),
    ]
    tree = model_tree(OLD, offers, 18, "LADE")
    assert (tree["id"], tree["hosts"], tree["promoted"], tree["context"]) == ("chat", 2, False, 2048)
    assert tree["devices"] == ["cpu-avx2"]
    assert tree["assurance"] == ["unverified"]
    assert (tree["price"]["input"], tree["price"]["output"]) == ("2", "1.5")
    assert (tree["price"]["input_wei"], tree["price"]["output_wei"]) == (str(2 * 10**18), str(15 * 10**17))
    assert model_tree(OLD, [], 18, "LADE")["price"] is None


@given(st.lists(st.floats(0, 30), max_size=60))
def test_a_bucket_never_gives_more_than_its_size_and_rate(gaps: list[float]) -> None:
    bucket, now, taken = Bucket(3, 30.0), 0.0, 0
    for gap in gaps:
        now += gap
        taken += bucket.take("me", now) == 0
        assert taken <= 3 + now / 10 + 1e-6


def test_buckets_are_bounded() -> None:
    bucket = Bucket(1, 10.0, names=2)
    assert [bucket.take(name, 0.0) for name in ("a", "b")] == [0, 0]
    assert bucket.take("c", 0.0) > 0
    assert bucket.take("c", 11.0) == 0
