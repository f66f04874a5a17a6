"""The index of offers and what is known of each host. In memory, bounded; opens no connection.

What may come in is decided here; who is chosen in lading.core, which looks at what is kept here.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from heapq import heapify, heappop, heappush
from itertools import islice

from lading.core.fleet import Fleet
from lading.core.idle import MOST_GIVEN_UP, Idle
from lading.core.index import Entry, HostState
from lading.core.matching import (
    BEAT_LIMIT,
    FAR,
    LANDING_SECONDS,
    OUT,
    Aim,
    Candidate,
    Lost,
    Want,
    aim_of,
    distance,
    grades_of,
    rank,
    refusal_of,
    unfit_for,
)
from lading.core.near import BYTES_A_TOKEN, FRESH_CHOICES, Band, Chance, Pick, Scored, choose, draw, learn
from lading.core.prefix import PrefixIndex, chain_of, covered
from lading.core.survey import quotable, stocks
from lading.core.why import Choice, Choices, Found, Losses
from lading_protocol.eip712 import read_field
from lading_protocol.ids import Address, AgentId
from lading_protocol.messages import Advert
from lading_protocol.offers import KnownOffer
from lading_protocol.receipts import Offer
from lading_protocol.summaries import Stock

SHUN_SECONDS = 10.0
SHUN_LIAR_SECONDS = 3600.0
MOST_FORGIVEN = 2
FULL_SECONDS, MOST_FULL_SECONDS, MOST_DENIED_SECONDS = 0.5, 8.0, 60.0
MAX_OFFERS = 200_000
MAX_OFFERS_PER_HOST = 64
SWEPT_AT_ONCE = 4096
# Agents whose choices are remembered, and offers that are looked at to say why none will do.
MOST_AGENTS = 4096
MOST_EXPLAINED = 1024
# Hosts that report to other coordinators only.
MOST_QUOTED = 4096
# A prompt shorter than this tells the way's length, a longer one how fast it is read.
SHORT_TOKENS = 64.0


class Directory:
    """Offers by agent and host. With `needs_beats` only hosts that report are eligible, as a coordinator wants."""

    def __init__(self, *, needs_beats: bool, limit: int = MAX_OFFERS) -> None:
        self._needs_beats = needs_beats
        self._limit = limit
        self._fleet = Fleet(needs_beats=needs_beats)
        self._slots: dict[AgentId, dict[tuple[Address, bytes], Entry]] = {}
        self._expiring: list[tuple[int, int, Entry]] = []
        self._turn = 0
        self._floors: dict[Address, int] = {}
        self._sunsets: dict[bytes, int] = {}
        self._doubted: frozenset[Address] = frozenset()
        self._idle = Idle()
        self._total = 0
        self._unswept: list[Address] = []
        self._prefixes = PrefixIndex()
        self._choices: dict[AgentId, Choices] = {}
        # A report: host, free slots, waiting requests, now. Nothing comes as often, so no call stands in between.
        self.beat = self._fleet.beat

    # Offers

    def put(self, known: KnownOffer) -> bool:
        """Keep a checked offer unless a newer one is held; False when it was not news, is void, or there is no room."""
        offer, host = known.offer, known.host
        if offer.sequence < self._floors.get(host, 0):
            return False
        key = (host, offer.terms)
        slot = self._slots.get(known.agent)
        held = None if slot is None else slot.get(key)
        if held is None:
            if self._total >= self._limit or len(self._entries(host)) >= MAX_OFFERS_PER_HOST:
                return False
        else:
            older = held.known.offer
            if older.sequence >= offer.sequence:
                return False
            if self._fleet.renew(held, known, self._until(known)):
                if offer.expires < older.expires:
                    self._expire_later(held)
                return True
            self._drop(held)
        entry = self._slots.setdefault(known.agent, {})[key] = self._fleet.add(known, self._until(known))
        self._total += 1
        self._expire_later(entry)
        return True

    def _expire_later(self, entry: Entry) -> None:
        """At the time that the entry names now; it is looked at again then, as a newer offer may have come."""
        self._turn += 1
        heappush(self._expiring, (entry.known.offer.expires, self._turn, entry))
        if len(self._expiring) > 2 * self._total + 1024:
            self._expiring = [one for one in self._expiring if self._held(one[2])]
            heapify(self._expiring)

    def quote(self, known: KnownOffer, free: int, waiting: int, at: float) -> bool:
        """An offer, and what its host reported `at` that time, as another coordinator tells it; False where it is no
        news, and for a host that reports here itself."""
        host, fleet = known.host, self._fleet
        state = fleet.hosts.get(host)
        if fleet.speaks(host) or (state is not None and state.beat_at is not None and state.beat_at >= at):
            return False
        if host not in fleet.quoted and len(fleet.quoted) >= MOST_QUOTED:
            longest = fleet.longest_quoted()
            if longest is None:
                return False
            self._forget(longest)
        self.put(known)
        if not self._entries(host):
            return False
        fleet.hearsay(fleet.host(host), free, waiting, at)
        return True

    def _forget(self, host: HostState) -> None:
        for entry in list(host.entries):
            self._drop(entry)
        self.gone(host.address)

    def replace(self, host: Address, offers: list[KnownOffer]) -> None:
        """All offers of one host, as it stated them itself: what is missing is withdrawn."""
        self._fleet.introduced(self._fleet.host(host))
        keep = {(known.agent, known.terms) for known in offers}
        for entry in list(self._fleet.host(host).entries):
            if (entry.known.agent, entry.known.terms) not in keep:
                self._drop(entry)
        for known in offers:
            self.put(known)

    def raise_floor(self, host: Address, sequence: int) -> None:
        """The host voided its offers below `sequence` on the chain: those held are dropped, no more are taken."""
        if sequence <= self._floors.get(host, 0):
            return
        self._floors[host] = sequence
        for entry in list(self._entries(host)):
            if entry.known.offer.sequence < sequence:
                self._drop(entry)

    def sunset(self, terms: bytes, moment: int) -> None:
        """From second `moment` on nothing is locked under these terms; 0: none is announced, or it was called off."""
        if moment == self._sunsets.get(terms, 0):
            return
        if moment:
            self._sunsets[terms] = moment
        else:
            del self._sunsets[terms]
        for slot in self._slots.values():
            for (_, named), entry in slot.items():
                if named == terms:
                    self._fleet.extend(entry, self._until(entry.known))

    # Hosts

    def gone(self, host: Address) -> None:
        """The host's link is lost: it reports no more until it is back."""
        self._fleet.gone(self.host(host))
        self._prefixes.forget(host)

    def bar(self, host: Address, why: str) -> None:
        """Keep a host out, with the reason it will read; an empty reason lets it in again."""
        self._fleet.bar(self.host(host), why)

    def doubt(self, hosts: Iterable[Address]) -> None:
        """These hosts, and no others, come after all that are free."""
        doubted = frozenset(hosts)
        for host in doubted ^ self._doubted:
            if host in doubted or host in self._fleet.hosts:
                self._fleet.doubt(self._fleet.host(host), doubted=host in doubted or host in self._idle)
        self._doubted = doubted

    def started(self, host: Address, *, batch: bool = False) -> None:
        self._fleet.job(self.host(host), 1, batch=batch)

    def ended(self, host: Address, *, batch: bool = False) -> None:
        self._fleet.job(self.host(host), -1, batch=batch)

    def worked(self, host: Address) -> None:
        state = self.host(host)
        state.failures = state.refusals = state.denied = state.given_up = state.forgiven = 0
        if self._idle.forget(host):
            self._fleet.doubt(state, doubted=host in self._doubted)

    def full(self, host: Address, now: float) -> None:
        """It refused a job for want of a slot: others were there first, or its reports are not true. The more in a row,
        the longer they are not believed; much longer where no report in between owned up to it."""
        state = self.host(host)
        if state.blind:  # it had said so
            state.stays = True
            self._fleet.full(state, now, now)
        elif state.beat_at is not None:
            state.refusals += 1
            state.denied += 1
            most = MOST_FULL_SECONDS if state.denied == 1 else MOST_DENIED_SECONDS
            pause = min(FULL_SECONDS * 2 ** min(state.refusals + state.denied - 1, 16), most)
            self._fleet.full(state, now + pause, now)

    def failed(self, host: Address, now: float, *, blame: bool) -> None:
        """A job on this host broke. A host that contradicted the protocol is left alone for an hour."""
        state = self.host(host)
        state.failures += 1
        pause = SHUN_LIAR_SECONDS if blame else min(SHUN_SECONDS * 2 ** min(state.failures - 1, 16), SHUN_LIAR_SECONDS)
        if blame:
            state.lied_until = now + pause
        self._fleet.shun(state, max(state.shunned_until, now + pause), now)
        self._prefixes.forget(host)

    def gave_up(self, host: Address, now: float) -> None:
        """It would not have a job, or gave it up, and not for the payer's sake."""
        state = self.host(host)
        state.given_up += 1
        if state.given_up >= MOST_GIVEN_UP:
            self.failed(host, now, blame=False)
        elif self._idle.note(host, state.given_up, now):
            self._fleet.doubt(state, doubted=True)

    def forgive(self, host: Address, now: float) -> None:
        """The host says that it is back: it may be chosen at once, unless it lied, or was let in so again and again."""
        state = self.host(host)
        if state.shunned_until and state.failures and state.lied_until <= now and state.forgiven < MOST_FORGIVEN:
            state.forgiven += 1
            self._fleet.forgive(state)

    def prune(self, now: float) -> None:
        while self._expiring and self._expiring[0][0] <= now:
            entry = heappop(self._expiring)[2]
            if not self._held(entry):
                continue
            if entry.known.offer.expires > now:
                self._expire_later(entry)
            else:
                self._drop(entry)
        for host in [host for host in self._fleet.quoted if not self._entries(host)]:
            self.gone(host)
        for agent in [agent for agent, slot in self._slots.items() if not slot]:
            del self._slots[agent]
        # Others are looked up when a host names them.
        named = {terms for slot in self._slots.values() for _, terms in slot} if self._sunsets else set()
        self._sunsets = {terms: moment for terms, moment in self._sunsets.items() if terms in named}
        self._forget_idle(now)

    def _forget_idle(self, now: float) -> None:
        """A part of all hosts at a time: to look at 100,000 of them in one go would hold up every stream."""
        if not self._unswept:
            self._unswept = list(self._fleet.hosts)
        some = self._unswept[-SWEPT_AT_ONCE:]
        del self._unswept[-SWEPT_AT_ONCE:]
        for host in some:
            state = self._fleet.hosts.get(host)
            if state is None:
                continue
            # A barred host is looked up again when it comes back; keys are free, so nobody stays for being barred.
            idle = not state.entries and not state.busy and state.beat_at is None
            if idle and state.shunned_until <= now and host not in self._doubted:
                self._fleet.forget(state)
                self._prefixes.forget(host)

    def host(self, host: Address) -> HostState:
        return self._fleet.host(host)

    def hosts(self) -> dict[Address, HostState]:
        return dict(self._fleet.hosts)

    def barred(self) -> list[Address]:
        """The hosts that are kept out."""
        return list(self._fleet.barred)

    @property
    def linked(self) -> int:
        """How many hosts report here themselves."""
        return self._fleet.linked - len(self._fleet.quoted)

    @property
    def quoted(self) -> int:
        """How many hosts are known by what other coordinators quote."""
        return len(self._fleet.quoted)

    def presses(self, host: Address) -> bool:
        """Whether who chose this host had better look for others: it has no room, or only others tell how it is."""
        state = self._fleet.hosts.get(host)
        return state is None or state.quoted or state.room <= 0

    def quotes(self, host: Address) -> bool:
        """Whether only others tell how this host is."""
        return host in self._fleet.quoted

    def agents(self) -> list[AgentId]:
        return [agent for agent, slot in self._slots.items() if slot]

    def offers(self, agent: AgentId | None = None) -> list[KnownOffer]:
        slots = self._slots.values() if agent is None else [self._slots.get(agent, {})]
        return [entry.known for slot in slots for entry in slot.values()]

    def entries(self, agent: AgentId) -> Iterable[Entry]:
        """The same for who may not go through all of them; they are gone through before anything else is done."""
        return self._slots.get(agent, {}).values()

    def offers_of(self, host: Address) -> list[KnownOffer]:
        return [entry.known for entry in self._entries(host)]

    def held(self, advert: Advert) -> KnownOffer | None:
        """The offer, where this very advert is held already and so was checked."""
        host = Address(read_field(Offer, advert.offer, "host"))
        return next((entry.known for entry in self._entries(host) if entry.known.advert == advert), None)

    @property
    def size(self) -> int:
        """Offers held, of all hosts."""
        return self._total

    # Choosing

    def choose(self, agent: AgentId, want: Want, now: float, rng: Chance) -> Pick | None:
        """The host for a job, or None when no offer will do. The caller says `started` once the job is on its way."""
        aim = aim_of(want)
        for host in self._idle.over(now):
            if (state := self._fleet.hosts.get(host)) is not None:
                self._fleet.doubt(state, doubted=host in self._doubted)
        found = self._fleet.best(agent, aim, now, grades_of(want))
        if found is None:
            self._remember(agent, now, aim, None, rng)
            return None
        plan, grade, best = found
        band = Band(plan, grade, aim, best.score, now)
        near = draw(band, FRESH_CHOICES, rng)
        chain = chain_of(agent, want.request)
        read = {host: covered(blocks) for host, blocks in self._prefixes.owners(chain).items()} if chain else {}
        if read:
            self._add_readers(agent, band, read, near)
        if not near:
            assert best.entry is not None
            near.append((best.entry, best.score, 0))
        chosen, seconds = choose(near, aim, read, now)
        offer = chosen.known
        if chain:
            self._prefixes.note(chain, offer.host)
        self._remember(agent, now, aim, (offer, best.score, seconds), rng)
        return Pick(offer, seconds, max(0, aim.size - read.get(offer.host, 0)) / BYTES_A_TOKEN)

    def _add_readers(self, agent: AgentId, band: Band, read: dict[Address, int], near: list[Scored]) -> None:
        """Hosts that have read the prompt's beginning and cost as little, beside those that were drawn."""
        drawn = {entry.host.address for entry, _, _ in near}
        aim, filters = band.aim, band.aim.filters
        insists = filters.tiers or filters.region or filters.assurance
        for host in read:
            for entry in self._entries(host) if host not in drawn else ():
                known, region = entry.known, entry.home.region
                if known.agent != agent:
                    continue
                steps = distance(filters.near, region)
                score = band.take(entry, FAR[steps])
                if score is not None and not (insists and unfit_for(known, region, aim)):
                    near.append((entry, score, steps))

    def has_host(self, agent: AgentId, want: Want, now: float) -> bool:
        """Whether `choose` would find a host. Notes nothing, as nobody gets the job."""
        return self._fleet.best(agent, aim_of(want), now, grades_of(want)) is not None

    def among(self, agent: AgentId, want: Want, hosts: Iterable[Address], now: float) -> list[Pick]:
        """Those of these hosts that can serve, best first, and last the best one of all."""
        aim = aim_of(want)
        entries = [entry for host in hosts for entry in self._entries(host) if entry.known.agent == agent]
        known = [one.offer for one in rank(map(self._candidate, entries), want, now)[0]]
        best = self._fleet.best(agent, aim, now)
        if best is not None and best[2].entry is not None:
            known.append(best[2].entry.known)
        return [Pick(offer, 0.0, aim.size / BYTES_A_TOKEN) for offer in known]

    def refusals(self, agent: AgentId, want: Want, now: float) -> list[Lost]:
        """Why none of an agent's offers will do; of very many offers, some."""
        found, aim = [], aim_of(want)
        for entry in islice(self.entries(agent), MOST_EXPLAINED):
            if refusal := refusal_of(self._candidate(entry), aim, now):
                found.append(Lost(entry.known.host, *refusal))
        return found

    def answered(self, pick: Pick, seconds: float) -> None:
        """The first token of a job came after so long: what is expected of this host the next time."""
        host = self._fleet.hosts.get(pick.offer.host)
        if host is not None:
            host.refusals = host.denied = 0
        if host is None or host.room < 0:  # it stood in a queue
            return
        if pick.tokens < SHORT_TOKENS:
            host.base = learn(host.base, max(seconds, 1e-4))
        else:
            host.pace = learn(host.pace, max(seconds - host.base, 1e-6) / pick.tokens)

    def served(self, host: Address, seconds: float) -> None:
        """A job took so long there, from beginning to end."""
        state = self.host(host)
        state.service = learn(state.service, seconds)

    def losses(self, host: Address, now: float) -> dict[AgentId, Losses]:
        """Why this host got work, or none, in the last minutes, for each agent that it offers."""
        state = self._fleet.hosts.get(host)
        if state is None:
            return {}
        offers: dict[AgentId, list[KnownOffer]] = {}
        for entry in state.entries:
            offers.setdefault(entry.known.agent, []).append(entry.known)
        empty = Choices()
        return {
            agent: self._choices.get(agent, empty).losses(state, found, now) for agent, found in sorted(offers.items())
        }

    def latest(self, agent: AgentId) -> tuple[Choice, int] | None:
        """One of the last choices for an agent, and how many there were of late (core.why)."""
        held = self._choices.get(agent)
        return None if held is None else held.latest

    def stocks(self, now: float) -> Iterator[list[Stock]]:
        """What is here, agent by agent, as other coordinators are told it; other work may be done in between."""
        self._fleet.settle(now)
        strange = Counter(
            (entry.known.agent, entry.home.region)
            for host in self._fleet.quoted
            for entry in self._entries(host)
            if entry.filed < OUT
        )
        for agent, stall in list(self._fleet.stalls.items()):
            yield list(stocks(agent, stall, strange, now))

    def quotable(self, agent: AgentId, aim: Aim, most: int, now: float, rng: Chance) -> list[Entry]:
        """Offers of hosts that report here, for who asks from elsewhere, the best ones."""
        return quotable(self._fleet, agent, aim, most, now, rng)

    def _remember(self, agent: AgentId, now: float, aim: Aim, found: Found | None, rng: Chance) -> None:
        held = self._choices.get(agent)
        if held is None:
            if agent not in self._slots:  # anybody may ask for any agent
                return
            if len(self._choices) >= MOST_AGENTS:
                del self._choices[next(iter(self._choices))]
            held = self._choices[agent] = Choices()
        held.add(now, aim, found, rng)

    def serves(self, agent: AgentId, now: float) -> bool:
        """Whether a host of the agent reports, and could be chosen."""
        hosts = [each.host for each in self.entries(agent) if each.known.offer.expires > now]
        return any(not one.barred and one.beat_at is not None and now - one.beat_at <= BEAT_LIMIT for one in hosts)

    def candidates(self, agent: AgentId) -> list[Candidate]:
        return [self._candidate(entry) for entry in self.entries(agent)]

    def _candidate(self, entry: Entry) -> Candidate:
        state = entry.host
        barred = state.barred
        if self._needs_beats and state.beat_at is None and not barred:
            barred = "is not linked"
        return Candidate(
            offer=entry.known,
            free=state.room,
            waiting=state.waiting,
            beat_at=state.beat_at,
            busy=state.busy,
            failures=state.failures,
            shunned_until=state.shunned_until,
            barred=barred,
            sunset_at=self._sunsets.get(entry.known.terms, 0),
            doubted=state.doubted,
            region=entry.home.region,
            yields=state.yields,
        )

    def _entries(self, host: Address) -> list[Entry]:
        state = self._fleet.hosts.get(host)
        return [] if state is None else state.entries

    def _held(self, entry: Entry) -> bool:
        known = entry.known
        return self._slots.get(known.agent, {}).get((known.host, known.terms)) is entry

    def _until(self, known: KnownOffer) -> float:
        expires = known.offer.expires
        sunset = self._sunsets.get(known.terms, 0) if self._sunsets else 0
        return min(expires, sunset - LANDING_SECONDS) if sunset else expires

    def _drop(self, entry: Entry) -> None:
        known = entry.known
        del self._slots[known.agent][known.host, known.terms]
        self._total -= 1
        self._fleet.drop(entry)
