"""What may be tuned in courts and auctions, and how far. Holds no money and no power over any.

A change is a call for the timelock: scheduled by the governor, seen by everybody, executed after the delay by anyone.
"""

from typing import Any, TypeVar

import msgspec

from lading_contracts.contract import Contract
from lading_contracts.port import Signer, TxReceipt
from lading_contracts.timelock import Call
from lading_protocol.ids import Address, Wei

P = TypeVar("P", bound=msgspec.Struct)


class CourtParams(msgspec.Struct, frozen=True, kw_only=True):
    """For both courts; field order is the contract's. `bond` in wei; windows, ages and jail in seconds.

    Shares in hundredths of a percent: `slash_bps` of the stake; `reward_bps`, `finder_bps`, `burn_bps` of the slash.
    `vote_deposit` (wei) is what each vote sets aside of its juror's surety.
    """

    bond: Wei
    slash_bps: int
    burn_bps: int
    reward_bps: int
    finder_bps: int
    committee_size: int
    quorum: int
    draw_delay_blocks: int
    commit_window: int
    reveal_window: int
    appeal_window: int
    receipt_max_age: int
    jail_time: int
    answer_window: int
    vote_deposit: Wei


class MarketParams(msgspec.Struct, frozen=True, kw_only=True):
    """For the auctions; field order is the contract's. Deposits and reserve in wei.

    `lineage_bps` of what a promotion brings go to the owner of the promoted agent's parent, the rest is destroyed.
    """

    share_deposit: Wei
    promotion_deposit: Wei
    promotion_reserve: Wei
    promotion_slots: int
    lineage_bps: int


class Parameters(Contract):
    """Versions count from 0; whoever acts under one (a dispute, an auction) keeps it to its end."""

    NAME = "Parameters"

    # --- changes: what the timelock is asked to call ---

    def court_change(self, params: CourtParams) -> Call:
        return Call(self.address, self._abi.call("setCourt", astuple(params)))

    def market_change(self, params: MarketParams) -> Call:
        return Call(self.address, self._abi.call("setMarket", astuple(params)))

    async def set_court(self, signer: Signer, params: CourtParams) -> TxReceipt:
        """Only for a governor that is an ordinary account; `deploy` makes it a timelock: see `court_change`."""
        return await self._write(signer, "setCourt", astuple(params))

    async def set_market(self, signer: Signer, params: MarketParams) -> TxReceipt:
        """As `set_court`."""
        return await self._write(signer, "setMarket", astuple(params))

    # --- views ---

    async def governor(self) -> Address:
        """The timelock."""
        return Address((await self._view("governor"))[0])

    async def court(self) -> tuple[int, CourtParams]:
        """The version in force, and its number."""
        version, values = await self._view("court")
        return version, from_tuple(CourtParams, values)

    async def court_at(self, version: int) -> CourtParams:
        return from_tuple(CourtParams, (await self._view("courtAt", version))[0])

    async def market(self) -> tuple[int, MarketParams]:
        version, values = await self._view("market")
        return version, from_tuple(MarketParams, values)

    async def market_at(self, version: int) -> MarketParams:
        return from_tuple(MarketParams, (await self._view("marketAt", version))[0])

    async def longest_dispute(self) -> int:
        """Seconds from opening to execution when everybody uses every second, under any version within the bounds."""
        return int((await self._view("longestDispute"))[0])

    async def oldest_receipt(self) -> int:
        """Seconds: no version lets an older receipt into court."""
        return int((await self._view("oldestReceipt"))[0])


def astuple(params: CourtParams | MarketParams) -> tuple[Any, ...]:
    """As the contracts' ABI wants it."""
    return msgspec.structs.astuple(params)


def from_tuple(kind: type[P], values: tuple[Any, ...]) -> P:
    return kind(**dict(zip(kind.__struct_fields__, values, strict=True)))
