"""Reserved capacity, paid as it is served: bids, acceptance, the end. Amounts are wei, moments Unix seconds."""

from enum import IntEnum

import msgspec

from lading_contracts import abi
from lading_contracts.errors import BadAbi
from lading_contracts.payments import Payments
from lading_contracts.port import Signer, TxReceipt
from lading_protocol.ids import ZERO_ADDRESS, Address, AgentId, Digest, Wei
from lading_protocol.keys import keccak256
from lading_protocol.receipts import SignedServed


class State(IntEnum):
    """Vacated: the tenant left, and the host may land its last signatures for a day."""

    NONE = 0
    BID = 1
    RUNNING = 2
    ENDED = 3
    VACATED = 4


class Fault(IntEnum):
    """How a lease ended: all served, the host quit, the tenant left, or neither admitted it."""

    NOBODY = 0
    HOST = 1
    TENANT = 2
    UNCLEAR = 3


class Lease(msgspec.Struct, frozen=True):
    """Field order is the contract's. `rate` is wei per slot and second; `served` seconds were paid of `duration`.

    `host` is zero while any active operator may accept. Once the tenant has left, `accept_by` is the second before
    which its last signatures must be landed. `bond_payer` paid the host's bond: the operator or its owner.
    """

    state: State
    tenant: Address
    host: Address
    slots: int
    start: int
    duration: int
    served: int
    accept_by: int
    rate: Wei
    host_bond: Wei
    tenant_bond: Wei
    bond_payer: Address
    agent: AgentId


class LeaseRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a tenant bids for: `slots` of an agent from `start` for `duration` seconds. `host` zero: any active one."""

    host: Address = ZERO_ADDRESS
    agent: AgentId
    slots: int
    start: int
    duration: int
    rate: Wei
    host_bond: Wei
    tenant_bond: Wei
    accept_by: int

    @property
    def escrow(self) -> Wei:
        """What `bid` takes: the whole price and the tenant's bond."""
        return Wei(self.rate * self.slots * self.duration + self.tenant_bond)


class Leases(Payments):
    NAME = "Leases"

    async def bid(self, signer: Signer, request: LeaseRequest) -> TxReceipt:
        """Takes `request.escrow` (needs an allowance: see Coin.allow). The lease's id: see `id_in`."""
        return await self._write(signer, "bid", msgspec.structs.astuple(request))

    def id_in(self, receipt: TxReceipt) -> Digest:
        """The id of the lease that this transaction bid for. Raises BadAbi when it bid for none."""
        topic = next(item.topic for item in self._abi.events.values() if item.name == "LeaseBid")
        for log in receipt.logs:
            if log.address == self.address and log.topics[0] == topic:
                return Digest(log.topics[1])
        raise BadAbi("This transaction bid for no lease.")

    async def cancel(self, signer: Signer, lease: bytes) -> TxReceipt:
        """Takes back a bid that nobody accepted, by the tenant."""
        return await self._write(signer, "cancel", lease)

    async def accept(self, signer: Signer, lease: bytes, operator: Address) -> TxReceipt:
        """By the operator or its owner, with the host's bond (needs an allowance)."""
        return await self._write(signer, "accept", lease, operator)

    async def collect(self, signer: Signer, served: SignedServed) -> TxReceipt:
        """Pays the host for the seconds that the tenant signed as served; by anyone."""
        return await self._write(signer, "collect", served.value.lease, served.value.served, served.signature)

    async def quit(self, signer: Signer, lease: bytes) -> TxReceipt:
        """The host (operator or owner) gives up what is not served and pays the penalty. Collect first."""
        return await self._write(signer, "quit", lease)

    async def vacate(self, signer: Signer, lease: bytes) -> TxReceipt:
        """The tenant gives up what is not served and pays the penalty; `finish` divides the money a day later."""
        return await self._write(signer, "vacate", lease)

    async def finish(self, signer: Signer, lease: bytes) -> TxReceipt:
        """Ends a lease a day after it ran out or was vacated, or at once when all was served; by anyone."""
        return await self._write(signer, "finish", lease)

    # --- views ---

    async def lease(self, lease: bytes) -> Lease | None:
        found = lease_of((await self._view("leases", lease))[0])
        return None if found.state is State.NONE else found

    async def count(self) -> int:
        """How many leases were ever bid for."""
        return int((await self._view("count"))[0])

    def lease_id(self, n: int) -> Digest:
        """Of the n-th lease, counted from 0; computed without asking the chain."""
        return keccak256(abi.encode(("uint256", "address", "uint256"), (self.chain.chain_id, self.address, n)))


def lease_of(values: tuple[object, ...]) -> Lease:
    state, *rest = values
    return Lease(State(state), *rest)  # type: ignore[arg-type]
