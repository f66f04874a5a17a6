"""Hosts with their offers on file, and what each report, failure and job changes in how they stand.

Keeps the promise that index makes: an entry is never filed in a worse grade than its host has. What a host loses is
found out when its entry is next looked at; what it regains is filed before the next choice.
"""

from collections import deque
from heapq import heappop, heappush
from itertools import islice
from typing import Final

from lading.core.index import DEAD, FOREVER, Best, Entry, HostState, Plan, Stall, cheapest, kind_of
from lading.core.matching import BEAT_LIMIT, GRADES, OUT, YIELDING, Aim, grade_of
from lading_protocol.ids import Address, AgentId
from lading_protocol.offers import KnownOffer

# Spells before so many are forgotten.
MOST_SPELLS: Final = 64
# How many are looked at for one that gives way to another.
MOST_LOOKED: Final = 64


class Fleet:
    """With `needs_beats` only hosts that report can be chosen. `barred` are those that are kept out, `linked` how many
    report. Of these others tell of those that are `quoted`, in the order in which they last did."""

    def __init__(self, *, needs_beats: bool) -> None:
        self.hosts: dict[Address, HostState] = {}
        self.barred: dict[Address, None] = {}
        self.linked = 0
        self.quoted: dict[Address, None] = {}
        self._own: set[Address] = set()
        self._needs_beats = needs_beats
        self.stalls: dict[AgentId, Stall] = {}
        self._regained: deque[HostState] = deque()
        self._waking: list[tuple[float, int, HostState]] = []
        self._turn = 0
        # The latest moment that was named. What was filed as over by then must be looked at again if it was not yet.
        self._now = 0.0

    def host(self, address: Address) -> HostState:
        found = self.hosts.get(address)
        if found is None:
            found = self.hosts[address] = HostState(address)
            self._regrade(found)
        return found

    def forget(self, host: HostState) -> None:
        """A host without offers."""
        del self.hosts[host.address]
        self.barred.pop(host.address, None)
        self._own.discard(host.address)

    # Offers

    def add(self, known: KnownOffer, until: float) -> Entry:
        host = self.host(known.host)
        stall = self.stalls.setdefault(known.agent, Stall())
        entry = Entry(known, host, stall.enter(known), until)
        host.entries.append(entry)
        if known.offer.slots > host.slots:
            host.slots = known.offer.slots
            self._regrade(host)
        entry.home.file(entry, host.grade)
        host.filed = max(host.filed, host.grade)
        return entry

    def drop(self, entry: Entry) -> None:
        known, host = entry.known, entry.host
        entry.home.file(entry, DEAD)
        host.entries.remove(entry)
        stall = self.stalls[known.agent]
        stall.leave(entry)
        if not stall.buckets:
            del self.stalls[known.agent]

    def renew(self, entry: Entry, known: KnownOffer, until: float) -> bool:
        """A newer offer in the place of one that differs by little; False when it belongs elsewhere."""
        old, new, offer = entry.known.detail, known.detail, known.offer
        if new is not old and (new.region != old.region or kind_of(known) != entry.kind):
            return False
        if offer.slots != entry.known.offer.slots:
            return False
        entry.home.reprice(entry, offer.price_in, offer.price_out)
        entry.known = known
        if until != entry.until or entry.filed > entry.host.grade:
            self.extend(entry, until)
        return True

    def extend(self, entry: Entry, until: float) -> None:
        """The end of an offer moved."""
        entry.until = until
        if entry.filed > entry.host.grade:
            entry.host.filed = OUT
            self._regain(entry.host)

    # Hosts

    def beat(self, address: Address, free: int, waiting: int, now: float) -> None:
        host = self.hosts.get(address) or self.host(address)
        came = host.beat_at is None or now > host.until
        if host.beat_at is None:
            self.linked += 1
        if came:
            self._returned(host, now)
        if now > self._now:
            self._now = now
        if free <= 0:
            host.denied = 0
        elif host.full_until > now:
            free = 0
        host.free, host.waiting, host.beat_at, host.drift = free, waiting, now, 0
        host.until = now + BEAT_LIMIT
        grade = host.grade
        if (free <= 0) != (grade >= YIELDING) or host.filed > grade or came or host.batch:
            host.stays = False
            self._regrade(host)

    def hearsay(self, host: HostState, free: int, waiting: int, at: float) -> None:
        """What a host that does not report here told somebody else at that time."""
        self.quoted.pop(host.address, None)
        self.quoted[host.address] = None
        host.quoted = True
        self.beat(host.address, free, waiting, at)

    def speaks(self, host: Address) -> bool:
        """Whether it reports here itself: then others' word counts for nothing."""
        state = self.hosts.get(host)
        return host in self._own or (state is not None and state.beat_at is not None and not state.quoted)

    def introduced(self, host: HostState) -> None:
        """It speaks for itself from now on, until it is gone."""
        self._own.add(host.address)
        self._unquote(host)

    def longest_quoted(self) -> HostState | None:
        """Whose place a newcomer may have: one that does not work for us."""
        some = (self.hosts[address] for address in islice(self.quoted, MOST_LOOKED))
        return next((host for host in some if not host.busy), None)

    def _unquote(self, host: HostState) -> None:
        host.quoted = False
        self.quoted.pop(host.address, None)

    def gone(self, host: HostState) -> None:
        if host.beat_at is not None:
            host.left_at = None if host.quoted else host.beat_at
            self.linked -= 1
        self._own.discard(host.address)
        self._unquote(host)
        host.beat_at, host.until = None, FOREVER
        self._regrade(host)

    def bar(self, host: HostState, why: str) -> None:
        host.barred = why
        if why:
            self.barred[host.address] = None
        else:
            self.barred.pop(host.address, None)
        self._regrade(host)

    def doubt(self, host: HostState, *, doubted: bool) -> None:
        host.doubted = doubted
        self._regrade(host)

    def job(self, host: HostState, change: int, *, batch: bool) -> None:
        """One of our jobs began there (1) or ended (-1)."""
        host.busy = max(0, host.busy + change)
        if batch:
            host.batch = max(0, host.batch + change)
        host.drift += change
        if change > 0:
            host.blind = host.grade >= YIELDING
        self._regrade(host)

    def full(self, host: HostState, until: float, now: float) -> None:
        """It has no slot, until then whatever it reports."""
        self._now = max(self._now, now)
        self._spell(host, "refused", now, until)
        host.full_until, host.free, host.drift = until, 0, 0
        self._regrade(host)

    def shun(self, host: HostState, until: float, now: float) -> None:
        if until > host.shunned_until:
            self._spell(host, "shunned", now, until)
            host.shunned_until = until
        self._now = max(self._now, now)
        self._wake_later(host)
        self._regrade(host)

    def forgive(self, host: HostState) -> None:
        host.failures, host.shunned_until = 0, 0.0
        self._regrade(host)

    # The choice

    def best(
        self, agent: AgentId, aim: Aim, now: float, grades: tuple[int, ...] = GRADES
    ) -> tuple[Plan, int, Best] | None:
        """The buckets that pass the filters, the grade of the best offer there, and that offer with its score."""
        self.settle(now)
        stall = self.stalls.get(agent)
        if stall is None:
            return None
        plan = stall.plan(aim.filters)
        for grade in grades:
            found = cheapest(plan, grade, aim, now)
            for entry in found.stale:
                self._refile(entry, now)
            if found.entry is not None:
                return plan, grade, found
        return None

    def settle(self, now: float) -> None:
        """Files what was regained since, as each choice does before it looks."""
        if now < self._now:
            self._turn_back(now)
        self._now = now
        while self._waking and self._waking[0][0] <= now:
            host = heappop(self._waking)[2]
            if host.grade == OUT:
                self._regrade(host)
        while self._regained:
            host = self._regained.popleft()
            host.queued, host.filed = False, host.grade
            for entry in host.entries:  # one that is over now counts as such until it is extended
                entry.home.file(entry, host.grade if entry.until > now else DEAD)

    def _turn_back(self, now: float) -> None:
        self._now = now
        for host in self.hosts.values():
            host.filed = OUT
            self._regrade(host)
            if host.shunned_until > now:
                self._wake_later(host)

    def _wake_later(self, host: HostState) -> None:
        self._turn += 1
        heappush(self._waking, (host.shunned_until, self._turn, host))

    def _refile(self, entry: Entry, now: float) -> None:
        host = entry.host
        if entry.until <= now:
            entry.home.file(entry, DEAD)
            return
        grade = OUT if host.until < now else host.grade
        entry.home.file(entry, grade)
        host.filed = max(host.filed, grade)

    def _regrade(self, host: HostState) -> None:
        if host.barred or host.shunned_until > self._now or (self._needs_beats and host.beat_at is None):
            grade = OUT
        else:
            grade = grade_of(host.room, doubted=host.doubted, yields=host.batch > 0 and host.yields)
        if grade != host.grade:
            self._note_fullness(host, grade)
            host.grade = grade
        # Who is in a rush looks there first, before all grades in which such a host may be filed still.
        if host.filed > grade or grade == YIELDING:
            self._regain(host)

    def _regain(self, host: HostState) -> None:
        if not host.queued:
            host.queued = True
            self._regained.append(host)

    # What a host that asks is told

    def _note_fullness(self, host: HostState, grade: int) -> None:
        was, now_full = YIELDING <= host.grade < OUT, YIELDING <= grade < OUT
        if now_full and not was:
            host.full_since = self._now
        elif was and not now_full:
            self._spell(host, "full", host.full_since, self._now)

    def _returned(self, host: HostState, now: float) -> None:
        if host.beat_at is not None:
            self._spell(host, "unquoted" if host.quoted else "silent", host.until, now)
        elif host.left_at is not None:
            self._spell(host, "unlinked", host.left_at, now)
            host.left_at = None

    def _spell(self, host: HostState, code: str, since: float, until: float) -> None:
        if until > since:
            host.spells.append((code, since, until))
            if len(host.spells) > MOST_SPELLS:
                del host.spells[0]
