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

    async def operator_at(self, place: int) -> Address:
        """The active operators in a list without gaps; whoever leaves, the last one takes its place."""
        return Address((await self._view("operatorAt", place))[0])

    async def operators(self) -> tuple[Address, ...]:
        """The active operators, one question each: for screens and small networks. Followers should use events."""
        return tuple([await self.operator_at(place) for place in range(await self.operator_count())])

    async def operator_count_at(self, moment: int) -> int:
        """How many were active when second `moment` ended; lotteries are held among those."""
        return int((await self._view("operatorCountAt", moment))[0])

    async def candidate(self, place: int, moment: int) -> tuple[Address, Address]:
        """Operator and owner at that place when second `moment` ended; zero addresses past the end."""
        operator, owner = await self._view("candidate", place, moment)
        return operator, owner

    async def owner_at(self, operator: Address, moment: int) -> Address:
        """The zero address if nobody owned it when second `moment` ended."""
        return Address((await self._view("ownerAt", operator, moment))[0])

    async def min_stake(self) -> Wei:
        return Wei((await self._view("minStake"))[0])

    async def cooldown(self) -> int:
        """Seconds that unbonding takes."""
        return int((await self._view("cooldown"))[0])

    async def coin(self) -> Address:
        return Address((await self._view("coin"))[0])

    async def court(self) -> Address:
        return Address((await self._view("court"))[0])
