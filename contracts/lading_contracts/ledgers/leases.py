"""Leases of capacity and what they hold in escrow: the tenant's price and bond, the host's bond."""

from msgspec.structs import replace

from lading_contracts import events
from lading_contracts.leases import Lease, State
from lading_contracts.ledgers.journal import Amounts, Journal, Ledger
from lading_protocol.ids import Digest


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
                if (lease := self.leases[id_]) is not None:
                    self.leases[id_] = replace(lease, state=State.RUNNING, host=host)
                    self.escrow.add(id_, lease.host_bond)
            case events.LeaseServed(id=id_, served=served, amount=amount):
                if (lease := self.leases[id_]) is not None:
                    self.leases[id_] = replace(lease, served=served)
                self.escrow.add(id_, -amount)
            case events.LeaseCancelled(id=id_) | events.LeaseEnded(id=id_):
                if (lease := self.leases[id_]) is not None:
                    self.leases[id_] = replace(lease, state=State.ENDED)
                self.escrow[id_] = 0
            case _:
                pass

    def owed(self) -> int:
        return self.escrow.total()
