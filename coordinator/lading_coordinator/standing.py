"""Keeps hosts without a stake, and hosts in jail, out of the index, by the chain's word.

An outage of the chain changes nothing: what was last known counts on. It also knows each host's owner, so that nobody
audits itself.
"""

import logging
from collections.abc import Callable

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


class Standing:
    """`required` false lets every host in, for networks without staking. `clock` gives Unix seconds."""

    def __init__(
        self, store: Store, staking: Staking, directory: Directory, clock: Callable[[], float], *, required: bool = True
    ) -> None:
        self._store = store
        self._staking = staking
        self._directory = directory
        self._clock = clock
        self._required = required
        self._owners: dict[Address, Address] = {
            Address(host): Address(owner) for host, owner in store.rows("select host, owner from standing")
        }
        self._dirty: set[Address] = set()
        self._asked: dict[Address, float] = {}

    def owner(self, host: Address) -> Address:
        """Who owns the host's stake; the host itself when that is not known."""
        return self._owners.get(host, host)

    async def check(self, host: Address) -> None:
        """Ask the chain about one host and act on it. Never raises for an outage."""
        if not self._required:
            return
        try:
            operator = await self._staking.operator(host)
            active = operator is not None and await self._staking.is_active(host)
        except ChainError as error:
            known = host in self._owners
            if not known:
                self._directory.bar(host, "could not be looked up on the chain yet")
            self._dirty.add(host)
            log.info("Host %s: its stake cannot be checked now (%s)", short(host), error.message)
            return
        jailed = operator.jailed_until if operator is not None else 0
        reason = bar_reason(active, operator.owner if operator is not None else None, jailed, self._clock())
        before = self._directory.host(host).barred
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
        barred = [host for host, state in self._directory.hosts().items() if state.barred]
        self._asked = {host: self._asked.get(host, 0.0) for host in barred}
        turn = sorted(barred, key=lambda host: self._asked[host])[:BARRED_AT_ONCE]
        asked = self._dirty | set(turn)
        self._dirty.clear()
        for host in asked:
            self._asked[host] = self._clock()
            await self.check(host)

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
            case _:
                pass
