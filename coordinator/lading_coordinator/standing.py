"""Keeps hosts without a stake, and hosts in jail, out of the index, by the chain's word.

An outage of the chain changes nothing: what was last known counts on. It also knows each host's owner, stake and payout
address, so that nobody audits itself and auditors are drawn by what they have to lose. What spot checks found against a
host counts beside the chain's word.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from lading.dispatch import Directory
from lading_contracts import events
from lading_contracts.errors import ChainError
from lading_contracts.staking import Staking
from lading_coordinator.core.standing import bar_reason
from lading_coordinator.errors import LedgerFailed
from lading_coordinator.store import Store
from lading_protocol.ids import Address, short

log = logging.getLogger(__name__)
BARRED_AT_ONCE = 8
# The list of all stakes is read in steps of so many questions, and again after so long; events tell what changed.
LISTED_AT_ONCE, STEP_SECONDS = 16, 0.5
LIST_SECONDS, LIST_AGAIN_SECONDS = 3600.0, 30.0


class Standing:
    """`required` false lets every host in, for networks without staking. `clock` gives Unix seconds."""

    def __init__(
        self,
        store: Store,
        staking: Staking,
        directory: Directory,
        clock: Callable[[], float],
        *,
        required: bool = True,
        payout_of: Callable[[Address], Awaitable[Address]] | None = None,
    ) -> None:
        self._store = store
        self._staking = staking
        self._directory = directory
        self._clock = clock
        self._required = required
        self._owners: dict[Address, Address] = {
            Address(host): Address(owner) for host, owner in store.rows("select host, owner from standing")
        }
        self._active = set(self._owners)
        self._payout_of = payout_of
        self._payouts: dict[Address, Address] = {}
        self._stakes: dict[Address, int] = {}
        self._found: dict[Address, str] = {}
        self._said: dict[Address, str] = {}
        self._dirty: set[Address] = set()
        self._asked: dict[Address, float] = {}

    def owner(self, host: Address) -> Address:
        """Who owns the host's stake; the host itself when that is not known."""
        return self._owners.get(host, host)

    def hands(self, host: Address) -> set[Address]:
        """The addresses that stand behind a host: its own, its owner's, and the one that its earnings go to."""
        return {host, self.owner(host), self._payouts.get(host, host)}

    def stake(self, host: Address) -> int:
        """What the host has at stake (wei); 1 for each where no stake is required, 0 where it is not known."""
        return self._stakes.get(host, 0) if self._required else 1

    def has_stake(self, host: Address) -> bool:
        """By what is known here, without a question: also of hosts that never were linked."""
        return not self._required or host in self._active

    def accuse(self, host: Address, why: str) -> None:
        """Keep a host out for what was found against it here, beside what the chain says; "" lets it in again."""
        if why == self._found.get(host, ""):
            return
        self._found[host] = why
        self._directory.bar(host, self._said.get(host, "") or why)
        if why:
            log.warning("Host %s gets no new jobs: it %s", short(host), why)

    async def check(self, host: Address) -> None:
        """Ask the chain about one host and act on it. Never raises for an outage."""
        if not self._required:
            self._directory.bar(host, self._found.get(host, ""))
            return
        try:
            operator = await self._staking.operator(host)
            active = operator is not None and await self._staking.is_active(host)
            payout = await self._payout_of(host) if self._payout_of is not None else host
        except ChainError as error:
            known = host in self._owners
            if not known:
                self._said[host] = "could not be looked up on the chain yet"
                self._directory.bar(host, self._said[host])
            self._dirty.add(host)
            log.info("Host %s: its stake cannot be checked now (%s)", short(host), error.message)
            return
        jailed = operator.jailed_until if operator is not None else 0
        reason = bar_reason(active, operator.owner if operator is not None else None, jailed, self._clock())
        before = self._directory.host(host).barred
        self._said[host], self._payouts[host] = reason, payout
        (self._active.add if active else self._active.discard)(host)
        self._stakes[host] = int(operator.stake) if operator is not None and active else 0
        reason = reason or self._found.get(host, "")
        self._directory.bar(host, reason)
        if reason and reason != before:
            log.info("Host %s is not chosen: it %s", short(host), reason)
        if operator is not None and self._owners.get(host) != operator.owner:
            self._owners[host] = operator.owner
            if active:
                self._remember(host, operator.owner)

    def _remember(self, host: Address, owner: Address) -> None:
        try:
            self._store.write([("insert or replace into standing values (?,?)", (host, owner))])
        except LedgerFailed as error:
            log.error("The owner of host %s is not stored: %s", short(host), error)

    async def recheck(self) -> None:
        """Asks again about hosts whose last question failed or whom an event named, and about some that are barred.

        Those whose turn was longest ago: keys without a stake are free, and must not drown the chain in questions.
        """
        barred = self._directory.barred()
        self._asked = {host: self._asked.get(host, 0.0) for host in barred}
        turn = sorted(barred, key=lambda host: self._asked[host])[:BARRED_AT_ONCE]
        asked = self._dirty | set(turn)
        self._dirty.clear()
        for host in asked:
            self._asked[host] = self._clock()
            await self.check(host)

    async def list_all(self) -> None:
        """Reads who has an active stake in the whole network, now and again, for ever: names are free, so nobody who
        is merely heard of is looked up one by one."""
        while self._required:
            try:
                await self._list()
                await asyncio.sleep(LIST_SECONDS)
            except ChainError as error:
                log.info("The list of all stakes cannot be read now: %s", error.message)
                await asyncio.sleep(LIST_AGAIN_SECONDS)

    async def _list(self) -> None:
        """Raises ChainError."""
        before, listed = set(self._active), set[Address]()
        count = await self._staking.operator_count()
        for first in range(0, count, LISTED_AT_ONCE):
            places = range(first, min(first + LISTED_AT_ONCE, count))
            some = await asyncio.gather(*(self._staking.operator_at(place) for place in places))
            listed.update(some)
            self._active.update(some)
            await asyncio.sleep(STEP_SECONDS)
        for host in before - listed:  # or the list changed under our hands
            if not await self._staking.is_active(host):
                self._active.discard(host)

    def notice(self, event: events.Event) -> None:
        match event:
            case (
                events.Staked()
                | events.Unstaked()
                | events.UnstakeRequested()
                | events.Slashed()
                | events.Jailed()
                | events.Activated()
                | events.Deactivated()
            ):
                self._dirty.add(event.operator)
            case events.PayoutSet():
                self._dirty.add(event.host)
            case _:
                pass
