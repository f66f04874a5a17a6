"""Parameters in memory: versions of what may be tuned, each within the bounds of the first."""

from typing import Any

from msgspec.structs import astuple

from lading_contracts.fake.world import Book, Model, World, require
from lading_contracts.parameters import CourtParams, MarketParams
from lading_protocol.ids import MAX_U96, Address

_WHOLE_BPS = 10_000
_MIN_BURN_BPS = 1_000
_MAX_COMMITTEE, _MAX_DRAW_DELAY, _MAX_APPEALS, _MAX_SLOTS = 7, 200, 2, 32


class ParametersModel(Model):
    def __init__(self, world: World, address: Address, sender: Address, *given: Any) -> None:
        super().__init__(world, address)
        self._governor, court, market = given
        require(any(self._governor), "BadParams")
        self._court: Book[str, tuple[CourtParams, ...]] = Book(world, ())
        self._market: Book[str, tuple[MarketParams, ...]] = Book(world, ())
        self._push_court(_court(court))
        self._push_market(_market(market))

    def set_court(self, sender: Address, values: tuple[Any, ...]) -> None:
        require(sender == self._governor, "NotGovernor", sender)
        p, first = _court(values), self._court["all"][0]
        windows = ("commit_window", "reveal_window", "appeal_window", "answer_window", "draw_delay_blocks")
        within = all(getattr(first, one) <= getattr(p, one) <= 2 * getattr(first, one) for one in windows)
        fairer = (
            p.committee_size >= first.committee_size
            and p.quorum >= first.quorum
            and p.slash_bps <= first.slash_bps
            and p.jail_time <= first.jail_time
            and p.receipt_max_age <= first.receipt_max_age
            and p.reward_bps + p.finder_bps <= first.reward_bps + first.finder_bps
        )
        dear = first.vote_deposit <= p.vote_deposit <= 4 * first.vote_deposit
        require(within and fairer and dear and first.bond <= 4 * p.bond <= 16 * first.bond, "BadParams")
        self._push_court(p)

    def set_market(self, sender: Address, values: tuple[Any, ...]) -> None:
        require(sender == self._governor, "NotGovernor", sender)
        p, first = _market(values), self._market["all"][0]
        amounts = ("share_deposit", "promotion_deposit", "promotion_reserve")
        near = all(getattr(first, one) <= 10 * getattr(p, one) <= 100 * getattr(first, one) for one in amounts)
        require(near, "BadParams")
        self._push_market(p)

    # --- views ---

    def governor(self, _sender: Address) -> Address:
        return Address(self._governor)

    def court(self, _sender: Address) -> tuple[Any, ...]:
        return self.court_version(), astuple(self._court["all"][-1])

    def court_at(self, _sender: Address, version: int) -> tuple[Any, ...]:
        return astuple(self.court_params(version))

    def market(self, _sender: Address) -> tuple[Any, ...]:
        return self.market_version(), astuple(self._market["all"][-1])

    def market_at(self, _sender: Address, version: int) -> tuple[Any, ...]:
        return astuple(self.market_params(version))

    def longest_dispute(self, _sender: Address) -> int:
        first = self._court["all"][0]
        return (1 + _MAX_APPEALS) * 2 * (first.commit_window + first.reveal_window + first.appeal_window)

    def oldest_receipt(self, _sender: Address) -> int:
        return self._court["all"][0].receipt_max_age

    # --- for other models ---

    def court_version(self) -> int:
        return len(self._court["all"]) - 1

    def court_params(self, version: int) -> CourtParams:
        require(version < len(self._court["all"]), "UnknownVersion", version)
        return self._court["all"][version]

    def market_version(self) -> int:
        return len(self._market["all"]) - 1

    def market_params(self, version: int) -> MarketParams:
        require(version < len(self._market["all"]), "UnknownVersion", version)
        return self._market["all"][version]

    # --- inside ---

    def _push_court(self, p: CourtParams) -> None:
        sound = (
            0 < p.bond <= MAX_U96 >> _MAX_APPEALS
            and 0 < p.vote_deposit <= p.bond
            and 0 < p.slash_bps <= _WHOLE_BPS
            and p.burn_bps >= _MIN_BURN_BPS
            and p.burn_bps + p.reward_bps + p.finder_bps <= _WHOLE_BPS
            and p.committee_size <= _MAX_COMMITTEE
            and max(2, p.committee_size // 2 + 1) <= p.quorum <= p.committee_size
            and 0 < p.draw_delay_blocks <= _MAX_DRAW_DELAY
            and min(p.commit_window, p.reveal_window, p.appeal_window, p.answer_window, p.receipt_max_age) > 0
        )
        require(sound, "BadParams")
        self.emit("CourtParamsSet", len(self._court["all"]), astuple(p))
        self._court["all"] = (*self._court["all"], p)

    def _push_market(self, p: MarketParams) -> None:
        sound = (
            min(p.share_deposit, p.promotion_deposit) > 0
            and 0 < p.promotion_slots <= _MAX_SLOTS
            and p.lineage_bps <= _WHOLE_BPS // 2
        )
        require(sound, "BadParams")
        self.emit("MarketParamsSet", len(self._market["all"]), astuple(p))
        self._market["all"] = (*self._market["all"], p)


def _court(values: tuple[Any, ...]) -> CourtParams:
    return CourtParams(**dict(zip(CourtParams.__struct_fields__, values, strict=True)))


def _market(values: tuple[Any, ...]) -> MarketParams:
    return MarketParams(**dict(zip(MarketParams.__struct_fields__, values, strict=True)))
