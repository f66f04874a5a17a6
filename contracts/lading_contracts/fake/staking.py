"""Staking in memory: stakes, cooldown, the active list in the contract's own order, now and at every moment before."""

from typing import Any

import msgspec
from msgspec.structs import replace

from lading_contracts.fake.coin import CoinModel
from lading_contracts.fake.world import Book, Model, World, require, signer_of
from lading_contracts.staking import Operator
from lading_protocol.eip712 import Domain
from lading_protocol.ids import ZERO_ADDRESS, Address, Wei
from lading_protocol.receipts import StakeConsent

_NOBODY = Operator(ZERO_ADDRESS, Wei(0), Wei(0), 0, 0, 0)


class Listed(msgspec.Struct, frozen=True):
    """The active operators from second `since` on, until the next list."""

    since: int
    operators: tuple[Address, ...]


class StakingModel(Model):
    def __init__(self, world: World, address: Address, sender: Address, *given: Any) -> None:
        super().__init__(world, address)
        coin, self._court, self._min_stake, self._cooldown = given
        require(any(coin) and any(self._court), "ZeroAddress")
        require(self._min_stake != 0, "ZeroAmount")
        require(self._cooldown <= 365 * 86_400, "CooldownTooLong")
        self._coin: CoinModel = world.contracts[coin]
        self._domain = Domain(world.chain_id, address)
        self._operators: Book[Address, Operator] = Book(world, _NOBODY)
        self._owned_since: Book[Address, int] = Book(world, 0)
        self._lists: Book[int, Listed] = Book(world, Listed(0, ()))
        self._changes: Book[str, int] = Book(world, 0)

    def stake(self, sender: Address, operator: Address, amount: int, consent: bytes) -> None:
        require(amount != 0, "ZeroAmount")
        require(operator != ZERO_ADDRESS, "ZeroAddress")
        found = self._operators[operator]
        if found.owner == ZERO_ADDRESS:
            if sender != operator:
                signer = signer_of(StakeConsent(sender).digest(self._domain), consent)
                require(signer == operator, "BadConsent", operator)
            self._owned_since[operator] = self.world.now
        else:
            require(found.owner == sender, "NotOwner", sender)
        total = Wei(found.stake + amount)
        self._operators[operator] = replace(found, owner=sender, stake=total)
        self.emit("Staked", operator, sender, amount, total)
        self._relist(operator)
        self._coin.transfer_from(self.address, sender, self.address, amount)

    def request_unstake(self, sender: Address, operator: Address, amount: int) -> None:
        found = self._operators[operator]
        require(found.owner == sender, "NotOwner", sender)
        require(amount != 0, "ZeroAmount")
        require(amount <= found.stake, "OverStake", found.stake)
        unlock_at = self.world.now + self._cooldown
        stake, unbonding = Wei(found.stake - amount), Wei(found.unbonding + amount)
        self._operators[operator] = replace(found, stake=stake, unbonding=unbonding, unlock_at=unlock_at)
        self.emit("UnstakeRequested", operator, amount, unlock_at)
        self._relist(operator)

    def finish_unstake(self, sender: Address, operator: Address) -> None:
        found = self._operators[operator]
        require(found.unbonding != 0, "NothingUnbonding")
        require(self.world.now >= found.unlock_at, "TooEarly", found.unlock_at)
        require(found.open_disputes == 0, "DisputeOpen", found.open_disputes)
        self._operators[operator] = replace(found, unbonding=Wei(0))
        self.emit("Unstaked", operator, found.owner, found.unbonding)
        self._coin.transfer(self.address, found.owner, found.unbonding)

    def unjail(self, sender: Address, operator: Address) -> None:
        found = self._operators[operator]
        require(self.world.now >= found.jailed_until, "TooEarly", found.jailed_until)
        require(found.stake >= self._min_stake, "NotActive", operator)
        self._relist(operator)

    # --- for the court ---

    def slash(self, sender: Address, operator: Address, amount: int, burnt: int) -> None:
        require(sender == self._court, "NotCourt", sender)
        found = self._operators[operator]
        from_stake = min(amount, found.stake)
        stake, unbonding = Wei(found.stake - from_stake), Wei(found.unbonding - (amount - from_stake))
        self._operators[operator] = replace(found, stake=stake, unbonding=unbonding)
        self.emit("Slashed", operator, amount, burnt)
        self._relist(operator)
        if burnt:
            self._coin.burn(self.address, burnt)
        if amount != burnt:
            self._coin.transfer(self.address, self._court, amount - burnt)

    def jail(self, sender: Address, operator: Address, until: int) -> None:
        require(sender == self._court, "NotCourt", sender)
        found = self._operators[operator]
        self._operators[operator] = replace(found, jailed_until=max(until, found.jailed_until))
        self.emit("Jailed", operator, max(until, found.jailed_until))
        self._relist(operator)

    def open_dispute(self, sender: Address, operator: Address) -> None:
        self._count_disputes(sender, operator, 1)

    def close_dispute(self, sender: Address, operator: Address) -> None:
        self._count_disputes(sender, operator, -1)

    def _count_disputes(self, sender: Address, operator: Address, by: int) -> None:
        require(sender == self._court, "NotCourt", sender)
        found = self._operators[operator]
        self._operators[operator] = replace(found, open_disputes=found.open_disputes + by)

    # --- views ---

    def operators(self, _sender: Address, operator: Address) -> tuple[Any, ...]:
        o = self._operators[operator]
        return o.owner, o.stake, o.unbonding, o.unlock_at, o.jailed_until, o.open_disputes

    def owner_of(self, _sender: Address, operator: Address) -> Address:
        return self._operators[operator].owner

    def slashable(self, _sender: Address, operator: Address) -> int:
        return self._operators[operator].stake + self._operators[operator].unbonding

    def is_active(self, _sender: Address, operator: Address) -> bool:
        return operator in self._active()

    def operator_count(self, _sender: Address) -> int:
        return len(self._active())

    def operator_at(self, _sender: Address, place: int) -> Address:
        return _at(self._active(), place)

    def operator_count_at(self, _sender: Address, moment: int) -> int:
        return len(self.active_at(moment))

    def candidate(self, _sender: Address, place: int, moment: int) -> tuple[Address, Address]:
        operator = _at(self.active_at(moment), place)
        return operator, self._operators[operator].owner

    def owner_at(self, _sender: Address, operator: Address, moment: int) -> Address:
        return self._operators[operator].owner if self._owned_since[operator] <= moment else ZERO_ADDRESS

    def active_at(self, moment: int) -> tuple[Address, ...]:
        """Who was active when `moment` ended, in the contract's order."""
        n = self._changes["n"]
        while n and self._lists[n].since > moment:
            n -= 1
        return self._lists[n].operators

    def stake_consent_digest(self, _sender: Address, owner: Address) -> bytes:
        return StakeConsent(owner).digest(self._domain)

    def coin(self, _sender: Address) -> Address:
        return self._coin.address

    def court(self, _sender: Address) -> Address:
        return Address(self._court)

    def min_stake(self, _sender: Address) -> int:
        return int(self._min_stake)

    def cooldown(self, _sender: Address) -> int:
        return int(self._cooldown)

    # --- inside ---

    def _active(self) -> tuple[Address, ...]:
        return self._lists[self._changes["n"]].operators

    def _relist(self, operator: Address) -> None:
        """Leaving moves the last of the list into the gap, as the contract does: the order matters to the lottery."""
        found = self._operators[operator]
        fit = found.stake >= self._min_stake and self.world.now >= found.jailed_until
        listed = list(self._active())
        if fit == (operator in listed):
            return
        if fit:
            listed.append(operator)
        else:
            listed[listed.index(operator)] = listed[-1]
            listed.pop()
        n = self._changes["n"]
        if not n or self._lists[n].since != self.world.now:
            self._changes["n"] = n + 1
        self._lists[self._changes["n"]] = Listed(self.world.now, tuple(listed))
        self.emit("Activated" if fit else "Deactivated", operator)


def _at(listed: tuple[Address, ...], place: int) -> Address:
    return listed[place] if place < len(listed) else ZERO_ADDRESS
