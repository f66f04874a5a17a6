"""Stakes of operators, as typed verbs. The operator is a node's hot key, the owner the cold address behind it."""

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

    async def operators(self) -> tuple[Address, ...]:
        """The active operators, one question each: for screens and small networks. Followers should use events."""
        (count,) = await self._view("operatorCount")
        return tuple([Address((await self._view("operatorAt", at))[0]) for at in range(count)])

    async def min_stake(self) -> Wei:
        return Wei((await self._view("minStake"))[0])
