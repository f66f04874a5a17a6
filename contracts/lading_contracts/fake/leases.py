"""Leases in memory: capacity bid for, accepted, paid as served, and how it ends."""

from typing import Any

import msgspec
from msgspec.structs import replace

from lading_contracts import abi
from lading_contracts.fake.payments import PaymentsModel
from lading_contracts.fake.settlement import SettlementModel
from lading_contracts.fake.staking import StakingModel
from lading_contracts.fake.world import Book, World, require, signed_by
from lading_protocol.eip712 import Domain
from lading_protocol.ids import MAX_U96, ZERO_ADDRESS, ZERO_DIGEST, Address
from lading_protocol.keys import keccak256
from lading_protocol.receipts import Served

_GRACE = 86_400
_NONE, _BID, _RUNNING, _ENDED, _VACATED = range(5)
_NOBODY, _HOST, _TENANT, _UNCLEAR = range(4)


class Entry(msgspec.Struct, frozen=True):
    """A lease. `deadline` is the second before which a bid must be accepted, then before which last signatures land."""

    state: int = _NONE
    tenant: Address = ZERO_ADDRESS
    host: Address = ZERO_ADDRESS
    agent: bytes = ZERO_DIGEST
    slots: int = 0
    start: int = 0
    duration: int = 0
    served: int = 0
    rate: int = 0
    host_bond: int = 0
    tenant_bond: int = 0
    deadline: int = 0
    owner_paid: bool = False

    def cost(self, seconds: int) -> int:
        return self.rate * self.slots * seconds


class LeasesModel(PaymentsModel):
    def __init__(self, world: World, address: Address, sender: Address, *given: Any) -> None:
        coin, staking, settlement = given
        super().__init__(world, address, coin)
        self._staking: StakingModel = world.contracts[staking]
        self._settlement: SettlementModel = world.contracts[settlement]
        self._domain = Domain(world.chain_id, address)
        self._count: Book[str, int] = Book(world, 0)
        self._leases: Book[bytes, Entry] = Book(world, Entry())

    def bid(self, sender: Address, request: tuple[Any, ...]) -> bytes:
        host, agent, slots, start, duration, rate, host_bond, tenant_bond, accept_by = request
        price = rate * slots * duration
        sound = 0 < price <= MAX_U96 and slots < 2**16 and accept_by <= start < 2**32
        require(sound, "BadLease")
        require(self.world.now < accept_by, "TooLate", accept_by)
        id_ = self.lease_id(sender, self._count["n"])
        self._count["n"] += 1
        self._leases[id_] = Entry(
            state=_BID,
            tenant=sender,
            host=host,
            agent=agent,
            slots=slots,
            start=start,
            duration=duration,
            rate=rate,
            host_bond=host_bond,
            tenant_bond=tenant_bond,
            deadline=accept_by,
        )
        self.emit("LeaseBid", id_, sender, host, self.leases(sender, id_))
        self._pull(sender, price + tenant_bond)
        return id_

    def cancel(self, sender: Address, id_: bytes) -> None:
        lease = self._in(id_, _BID)
        require(lease.tenant == sender, "NotParty", sender)
        self._leases[id_] = replace(lease, state=_ENDED)
        self.emit("LeaseCancelled", id_)
        self._send(sender, lease.cost(lease.duration) + lease.tenant_bond)

    def accept(self, sender: Address, id_: bytes, operator: Address) -> None:
        lease = self._in(id_, _BID)
        require(self.world.now < lease.deadline, "TooLate", lease.deadline)
        require(lease.host in (ZERO_ADDRESS, operator), "NotParty", operator)
        self._require_host(sender, operator)
        require(self._staking.is_active(sender, operator), "NotActive", operator)
        self._leases[id_] = replace(lease, host=operator, state=_RUNNING, owner_paid=sender != operator)
        self.emit("LeaseAccepted", id_, operator)
        self._pull(sender, lease.host_bond)

    def collect(self, sender: Address, id_: bytes, served: int, signature: bytes) -> None:
        lease = self._leases[id_]
        until = self.world.now
        if lease.state == _VACATED:
            require(until < lease.deadline, "TooLate", lease.deadline)
            until = lease.deadline - _GRACE
        else:
            require(lease.state == _RUNNING, "WrongState", lease.state)
        require(lease.served < served <= lease.duration, "BadServed", served)
        require(lease.start + served <= until, "BadServed", served)
        require(signed_by(lease.tenant, self.served_digest(sender, id_, served), signature), "BadServed", served)
        self._leases[id_] = replace(lease, served=served)
        amount = lease.cost(served - lease.served)
        self.emit("LeaseServed", id_, served, amount)
        self._send(self._settlement.payout_of(sender, lease.host), amount)

    def quit(self, sender: Address, id_: bytes) -> None:
        lease = self._in(id_, _RUNNING)
        self._require_host(sender, lease.host)
        self._end(id_, lease, _HOST)

    def vacate(self, sender: Address, id_: bytes) -> None:
        lease = self._in(id_, _RUNNING)
        require(lease.tenant == sender, "NotParty", sender)
        pay_at = self.world.now + _GRACE
        self._leases[id_] = replace(lease, state=_VACATED, deadline=pay_at)
        self.emit("LeaseVacated", id_, pay_at)

    def finish(self, _sender: Address, id_: bytes) -> None:
        lease = self._leases[id_]
        vacated = lease.state == _VACATED
        require(vacated or lease.state == _RUNNING, "WrongState", lease.state)
        if lease.served == lease.duration:
            self._end(id_, lease, _NOBODY)
            return
        ripe = lease.deadline if vacated else lease.start + lease.duration + _GRACE
        require(self.world.now >= ripe, "TooEarly", ripe)
        self._end(id_, lease, _TENANT if vacated else _UNCLEAR)

    # --- views ---

    def leases(self, _sender: Address, id_: bytes) -> tuple[Any, ...]:
        one = self._leases[id_]
        accepted = one.state != _BID and one.host != ZERO_ADDRESS
        terms = (one.slots, one.start, one.duration, one.served, one.deadline, one.rate, one.host_bond, one.tenant_bond)
        payer = self._bond_payer(one) if accepted else ZERO_ADDRESS
        return (one.state, one.tenant, one.host, *terms, payer, one.agent)

    def count(self, _sender: Address) -> int:
        return self._count["n"]

    def lease_id(self, _sender: Address, n: int) -> bytes:
        return keccak256(abi.encode(("uint256", "address", "uint256"), (self.world.chain_id, self.address, n)))

    def served_digest(self, _sender: Address, id_: bytes, served: int) -> bytes:
        return Served(id_, served).digest(self._domain)

    def staking(self, _sender: Address) -> Address:
        return self._staking.address

    def settlement(self, _sender: Address) -> Address:
        return self._settlement.address

    # --- inside ---

    def _in(self, id_: bytes, state: int) -> Entry:
        lease = self._leases[id_]
        require(lease.state == state, "WrongState", lease.state)
        return lease

    def _require_host(self, sender: Address, operator: Address) -> None:
        require(sender in (operator, self._staking.owner_of(sender, operator)), "NotParty", sender)

    def _bond_payer(self, lease: Entry) -> Address:
        return self._staking.owner_of(self.address, lease.host) if lease.owner_paid else lease.host

    def _end(self, id_: bytes, lease: Entry, fault: int) -> None:
        """The price of what was not served goes back, each bond to who paid it but for the part at fault."""
        self._leases[id_] = replace(lease, state=_ENDED)
        unserved = lease.duration - lease.served
        refunded = lease.cost(unserved)
        host_part = lease.host_bond * unserved // lease.duration if fault in (_HOST, _UNCLEAR) else 0
        tenant_part = lease.tenant_bond * unserved // lease.duration if fault in (_TENANT, _UNCLEAR) else 0
        lost = host_part + tenant_part
        penalty, destroyed = (0, lost) if fault == _UNCLEAR else (lost, 0)
        self.emit("LeaseEnded", id_, fault, refunded, penalty, destroyed)
        to_tenant = refunded + lease.tenant_bond - tenant_part
        self._send(lease.tenant, to_tenant + (penalty if fault == _HOST else 0))
        self._send(self._bond_payer(lease), lease.host_bond - host_part)
        if fault == _TENANT:
            self._send(self._settlement.payout_of(self.address, lease.host), penalty)
        self._destroy(destroyed)
