"""The auction rules as the client forecasts them: truth is best, tables keep their sum, forecasts come true."""

from hypothesis import given
from hypothesis import strategies as st

from lading.core.bidding import (
    HOSTS,
    WHOLE_BPS,
    ShareBid,
    ShareRules,
    clear,
    final_table,
    forecast_promotion,
    forecast_share,
)
from lading_contracts.registry import Party, Role
from lading_protocol.ids import Address

reserves = st.integers(1, 40)
asks = st.lists(st.integers(0, 45), max_size=8)
BASE = (Party(Address(b"\1" * 20), Role.MAKER, 100), Party(Address(b"\2" * 20), Role.OEM, 50))


def rules(role: int, seats: int, reserve: int) -> ShareRules:
    return ShareRules(role, seats, reserve, BASE)


@given(st.integers(1, 8), reserves, asks, st.integers(1, 40), st.integers(1, 40))
def test_asking_what_one_needs_is_best_in_a_share_auction(
    seats: int, reserve: int, others: list[int], need: int, lie: int
) -> None:
    auction = rules(Role.CURATOR, seats, reserve)

    def gain(bid: int) -> int:
        outcome = forecast_share(auction, bid, others)
        return outcome.bps - need if outcome.wins else 0

    assert gain(need) >= gain(lie)
    assert gain(need) >= 0


@given(st.integers(1, 50), st.lists(st.integers(0, 100), max_size=6), st.integers(0, 100), st.integers(0, 100))
def test_bidding_what_it_is_worth_is_best_in_a_promotion(reserve: int, others: list[int], worth: int, lie: int) -> None:
    def gain(bid: int) -> int:
        outcome = forecast_promotion(reserve, bid, others)
        return worth - outcome.price if outcome.wins else 0

    assert gain(worth) >= gain(lie)
    assert gain(worth) >= 0


@given(st.sampled_from((HOSTS, int(Role.OEM), int(Role.CURATOR))), st.integers(1, 8), reserves, asks)
def test_the_table_adds_up_whatever_is_bid(role: int, seats: int, reserve: int, bids: list[int]) -> None:
    auction = rules(role, seats, reserve)
    sealed = [ShareBid(bytes([at]) * 20, bps, at + 1) for at, bps in enumerate(bids)]
    cleared = clear(auction, sealed)
    table = final_table(auction, cleared)
    shares = sum(party.bps for party in table)
    if role == HOSTS:
        assert shares + cleared.bps == WHOLE_BPS
    else:
        assert shares == sum(party.bps for party in BASE) + seats * reserve
    assert table[0].bps >= BASE[0].bps
    assert len(cleared.winners) == min(seats, sum(1 for bps in bids if 0 < bps <= reserve))
    assert all(bid.bps <= cleared.bps <= reserve for bid in sealed if bid.bidder in cleared.winners)


@given(st.integers(1, 8), reserves, asks, st.integers(1, 40))
def test_the_bid_that_loses_is_named_rightly(seats: int, reserve: int, others: list[int], mine: int) -> None:
    auction = rules(Role.CURATOR, seats, reserve)
    found = forecast_share(auction, mine, others)
    losing = [bps for bps in range(1, reserve + 1) if not forecast_share(auction, bps, others).wins]
    assert found.lowest_to_lose == (min(losing) if losing else None)
    assert found.wins == (mine <= reserve and mine not in losing)


def test_of_equal_bids_the_earlier_one_wins() -> None:
    auction = rules(Role.CURATOR, 1, 40)
    cleared = clear(auction, [ShareBid(b"late", 7, 2), ShareBid(b"early", 7, 1)])
    assert cleared.winners == (b"early",)
    assert cleared.bps == 7
    assert not forecast_promotion(1, 9, [9]).wins
