"""The timelock that governs the parameters: OpenZeppelin's TimelockController, for one call at a time.

Whoever proposes waits the delay, in which everybody sees what is coming; then anyone may execute. It holds no money.
"""

from enum import IntEnum

import msgspec

from lading_contracts import abi
from lading_contracts.contract import Contract
from lading_contracts.port import Signer, TxReceipt
from lading_protocol.ids import ZERO_DIGEST, Address, Digest
from lading_protocol.keys import keccak256

PROPOSER = keccak256(b"PROPOSER_ROLE")
EXECUTOR = keccak256(b"EXECUTOR_ROLE")
CANCELLER = keccak256(b"CANCELLER_ROLE")


class Call(msgspec.Struct, frozen=True):
    """What the timelock shall call. `salt` tells two equal calls apart; `predecessor` must be executed before."""

    target: Address
    data: bytes
    value: int = 0
    predecessor: Digest = ZERO_DIGEST
    salt: Digest = ZERO_DIGEST

    @property
    def id(self) -> Digest:
        """The operation's id, computed without asking the chain."""
        types = ("address", "uint256", "bytes", "bytes32", "bytes32")
        return keccak256(abi.encode(types, (self.target, self.value, self.data, self.predecessor, self.salt)))


class OperationState(IntEnum):
    UNSET = 0
    WAITING = 1
    READY = 2
    DONE = 3


class Operation(msgspec.Struct, frozen=True):
    """`ready_at` is the second from which it may be executed; 0 when unset, 1 when done."""

    state: OperationState
    ready_at: int


class Timelock(Contract):
    """Batches, roles and other things that a governor does rarely are left to its own tools."""

    NAME = "TimelockController"

    async def schedule(self, signer: Signer, call: Call, delay: int | None = None) -> Digest:
        """By a proposer; `delay` in seconds, the shortest allowed when left out. Returns the operation's id."""
        wait = await self.min_delay() if delay is None else delay
        await self._write(signer, "schedule", call.target, call.value, call.data, call.predecessor, call.salt, wait)
        return call.id

    async def execute(self, signer: Signer, call: Call) -> TxReceipt:
        """By anyone, once the delay is over."""
        return await self._write(signer, "execute", call.target, call.value, call.data, call.predecessor, call.salt)

    async def cancel(self, signer: Signer, operation: bytes) -> TxReceipt:
        """By a canceller: who may propose may cancel."""
        return await self._write(signer, "cancel", operation)

    async def min_delay(self) -> int:
        """Seconds between scheduling and executing, at least."""
        return int((await self._view("getMinDelay"))[0])

    async def operation(self, operation: bytes) -> Operation:
        (state,) = await self._view("getOperationState", operation)
        (ready_at,) = await self._view("getTimestamp", operation)
        return Operation(OperationState(state), ready_at)

    async def has_role(self, role: bytes, account: Address) -> bool:
        """`role` is PROPOSER, EXECUTOR or CANCELLER of this module. The zero address as executor means anyone."""
        return bool((await self._view("hasRole", role, account))[0])

    async def may_propose(self, account: Address) -> bool:
        return await self.has_role(PROPOSER, account)
