"""Stakes, what is unbonding, jail and open disputes, from the events of Staking and of the audit court."""

from msgspec.structs import replace

from lading_contracts import events
from lading_contracts.ledgers.journal import Journal, Ledger
from lading_contracts.staking import Operator
from lading_protocol.ids import ZERO_ADDRESS, Address, Digest, Wei

_NOBODY = Operator(ZERO_ADDRESS, Wei(0), Wei(0), 0, 0, 0)


class StakingLedger:
    def __init__(self, journal: Journal) -> None:
        self.operators: Ledger[Address, Operator] = Ledger(journal, _NOBODY)
        self.active: Ledger[Address, bool] = Ledger(journal, False)
        self._accused: Ledger[Digest, Address] = Ledger(journal, ZERO_ADDRESS)

    def note(self, event: events.Event) -> None:
        match event:
            case events.Staked(operator=operator, owner=owner, stake=stake):
                self.operators[operator] = replace(self.operators[operator], owner=owner, stake=stake)
            case events.UnstakeRequested(operator=operator, amount=amount, unlock_at=unlock_at):
                found = self.operators[operator]
                stake, unbonding = Wei(found.stake - amount), Wei(found.unbonding + amount)
                self.operators[operator] = replace(found, stake=stake, unbonding=unbonding, unlock_at=unlock_at)
            case events.Unstaked(operator=operator):
                self.operators[operator] = replace(self.operators[operator], unbonding=Wei(0))
            case events.Slashed(operator=operator, amount=amount):
                self._slash(operator, amount)
            case events.Jailed(operator=operator, until=until):
                self.operators[operator] = replace(self.operators[operator], jailed_until=until)
            case events.Activated(operator=operator):
                self.active[operator] = True
            case events.Deactivated(operator=operator):
                self.active[operator] = False
            case events.Opened(id=dispute, host=host):
                self._accused[dispute] = host
                self._count_disputes(host, 1)
            case events.Executed(id=dispute):
                self._count_disputes(self._accused[dispute], -1)
            case _:
                pass

    def voided(self, dispute: Digest) -> None:
        """The audit court's dispute found no quorum: it is open no more."""
        self._count_disputes(self._accused[dispute], -1)

    def owed(self) -> int:
        """All that Staking must hold."""
        return sum(found.stake + found.unbonding for found in self.operators.values())

    def operators_of(self, owner: Address) -> list[Address]:
        return [operator for operator, found in self.operators.items() if found.owner == owner]

    def stakes_of(self, owner: Address) -> int:
        return sum(found.stake + found.unbonding for found in self.operators.values() if found.owner == owner)

    def _slash(self, operator: Address, amount: int) -> None:
        """From the stake first, then from what is unbonding."""
        found = self.operators[operator]
        of_stake = min(amount, found.stake)
        stake, unbonding = Wei(found.stake - of_stake), Wei(found.unbonding - (amount - of_stake))
        self.operators[operator] = replace(found, stake=stake, unbonding=unbonding)

    def _count_disputes(self, operator: Address, by: int) -> None:
        found = self.operators[operator]
        self.operators[operator] = replace(found, open_disputes=found.open_disputes + by)
