"""Leases of capacity and what they hold in escrow: the tenant's price and bond, the host's bond.

One thing their events do not say: whether operator or owner paid the host's bond. `bond_payer` stays zero here.
"""

from msgspec.structs import replace

from lading_contracts import events
from lading_contracts.leases import Lease, State
from lading_contracts.ledgers.journal import Amounts, Journal, Ledger
from lading_protocol.ids import Address, Digest


class LeaseLedger:
    def __init__(self, journal: Journal) -> None:
        self.leases: Ledger[Digest, Lease | None] = Ledger(journal, None)
        self.escrow: Amounts[Digest] = Amounts(journal)

    def note(self, event: events.Event) -> None:
        match event:
            case events.LeaseBid(id=id_, lease=lease):
                self.leases[id_] = lease
                self.escrow[id_] = lease.rate * lease.slots * lease.duration + lease.tenant_bond
            case events.LeaseAccepted(id=id_, host=host):
                self._change(id_, state=State.RUNNING, host=host)
                self.escrow.add(id_, self._lease(id_).host_bond)
            case events.LeaseServed(id=id_, served=served, amount=amount):
                self._change(id_, served=served)
                self.escrow.add(id_, -amount)
            case events.LeaseVacated(id=id_, pay_at=pay_at):
                self._change(id_, state=State.VACATED, accept_by=pay_at)
            case events.LeaseCancelled(id=id_) | events.LeaseEnded(id=id_):
                self._change(id_, state=State.ENDED)
                self.escrow[id_] = 0
            case _:
                pass

    def held_for(self, tenant: Address) -> int:
        """The price of what is not served and the tenant's bond, of its leases that have not ended."""
        held = 0
        for lease in self.leases.values():
            if lease is not None and lease.tenant == tenant and lease.state is not State.ENDED:
                held += lease.rate * lease.slots * (lease.duration - lease.served) + lease.tenant_bond
        return held

    def owed(self) -> int:
        return self.escrow.total()

    def _lease(self, id_: Digest) -> Lease:
        lease = self.leases[id_]
        if lease is None:
            raise LookupError("The events begin in the middle: they must be read from the deployment on.")
        return lease

    def _change(self, id_: Digest, **fields: object) -> None:
        self.leases[id_] = replace(self._lease(id_), **fields)
