"""Stakes of operators, as typed verbs. The operator is a node's hot key, the owner the cold address behind it.

What only the audit court may call (slash, jail, openDispute, closeDispute) has no verb here.
"""

import msgspec

from lading_contracts.contract import Contract
from lading_contracts.port import Signer, TxReceipt
from lading_protocol.ids import Address, Wei


class Operator(msgspec.Struct, frozen=True):
    """`unbonding` is on its way out and still slashable until it is paid, after `unlock_at`."""

    owner: Address
    stake: Wei
    unbonding: Wei
    unlock_at: int
    jailed_until: int
    open_disputes: int


class Tenure(msgspec.Struct, frozen=True):
    """A spell of being active: from second `since` (inclusive) to `until` (exclusive; 0 while it runs)."""

    operator: Address
    since: int
    until: int


class Staking(Contract):
    NAME = "Staking"

    async def stake(self, signer: Signer, operator: Address, amount: int, consent: bytes = b"") -> TxReceipt:
        """The signer becomes (or is) the owner. Needs an allowance of the coin: see Coin.allow.

        `consent` is the operator's signature of StakeConsent(owner): the first time, unless it stakes for itself.
        """
        return await self._write(signer, "stake", operator, amount, consent)

    async def request_unstake(self, signer: Signer, operator: Address, amount: int) -> TxReceipt:
        return await self._write(signer, "requestUnstake", operator, amount)

    async def finish_unstake(self, signer: Signer, operator: Address) -> TxReceipt:
        return await self._write(signer, "finishUnstake", operator)

    async def unjail(self, signer: Signer, operator: Address) -> TxReceipt:
        return await self._write(signer, "unjail", operator)

    async def operator(self, operator: Address) -> Operator | None:
        found = Operator(*await self._view("operators", operator))
        return found if any(found.owner) else None

    async def is_active(self, operator: Address) -> bool:
        return bool((await self._view("isActive", operator))[0])

    async def slashable(self, operator: Address) -> Wei:
        return Wei((await self._view("slashable", operator))[0])

    async def owner_of(self, operator: Address) -> Address:
        """The zero address when nobody ever staked for it."""
        return Address((await self._view("ownerOf", operator))[0])

    async def operator_count(self) -> int:
        """How many are active."""
        return int((await self._view("operatorCount"))[0])

    async def tenure(self, place: int) -> Tenure:
        return Tenure(*(await self._view("tenureAt", place))[0])

    async def tenures(self) -> int:
        """How many places there are; those of ended tenures are among them until somebody takes them."""
        return int((await self._view("tenureCount"))[0])

    async def candidate(self, place: int, moment: int) -> tuple[Address, Address]:
        """Operator and owner of the place at second `moment` of the last day; zero addresses if nobody held it."""
        operator, owner = await self._view("candidate", place, moment)
        return operator, owner

    async def operators(self) -> tuple[Address, ...]:
        """The active operators, one question each: for screens and small networks. Followers should use events."""
        held = [await self.tenure(place) for place in range(await self.tenures())]
        return tuple(one.operator for one in held if any(one.operator) and not one.until)

    async def min_stake(self) -> Wei:
        return Wei((await self._view("minStake"))[0])

    async def cooldown(self) -> int:
        """Seconds that unbonding takes."""
        return int((await self._view("cooldown"))[0])

    async def coin(self) -> Address:
        return Address((await self._view("coin"))[0])

    async def court(self) -> Address:
        return Address((await self._view("court"))[0])
