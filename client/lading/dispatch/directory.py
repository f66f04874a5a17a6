"""The index of offers and what is known of each host. In memory, bounded; opens no connection, decides nothing."""

from collections.abc import Iterable

import msgspec

from lading.core.matching import Candidate
from lading_protocol.ids import Address, AgentId
from lading_protocol.offers import KnownOffer

SHUN_SECONDS = 10.0
SHUN_LIAR_SECONDS = 3600.0
MAX_OFFERS = 200_000
MAX_OFFERS_PER_HOST = 64


class HostState(msgspec.Struct):
    """Times are the caller's clock, in seconds."""

    free: int = 1
    waiting: int = 0
    beat_at: float | None = None
    busy: int = 0
    failures: int = 0
    shunned_until: float = 0.0
    barred: str = ""


class Directory:
    """Offers by agent and host. With `needs_beats` only hosts that report are eligible, as a coordinator wants."""

    def __init__(self, *, needs_beats: bool, limit: int = MAX_OFFERS) -> None:
        self._needs_beats = needs_beats
        self._limit = limit
        self._offers: dict[AgentId, dict[tuple[Address, bytes], KnownOffer]] = {}
        self._hosts: dict[Address, HostState] = {}
        self._count: dict[Address, int] = {}
        self._floors: dict[Address, int] = {}
        self._sunsets: dict[bytes, int] = {}
        self._doubted: frozenset[Address] = frozenset()
        self._total = 0

    def put(self, known: KnownOffer) -> bool:
        """Keep a checked offer unless a newer one is held; False when it was not news, is void, or there is no room."""
        if known.offer.sequence < self._floors.get(known.host, 0):
            return False
        slot = self._offers.setdefault(known.agent, {})
        key = (known.host, known.terms)
        held = slot.get(key)
        if held is not None:
            if held.offer.sequence >= known.offer.sequence:
                return False
            slot[key] = known
            return True
        if self._total >= self._limit or self._count.get(known.host, 0) >= MAX_OFFERS_PER_HOST:
            return False
        slot[key] = known
        self._count[known.host] = self._count.get(known.host, 0) + 1
        self._total += 1
        return True

    def replace(self, host: Address, offers: list[KnownOffer]) -> None:
        """All offers of one host, as it stated them itself: what is missing is withdrawn."""
        keep = {(known.agent, known.terms) for known in offers}
        for agent, slot in self._offers.items():
            for key in [key for key in slot if key[0] == host and (agent, key[1]) not in keep]:
                self._drop(slot, key)
        for known in offers:
            self.put(known)

    def raise_floor(self, host: Address, sequence: int) -> None:
        """The host voided its offers below `sequence` on the chain: those held are dropped, no more are taken."""
        if sequence <= self._floors.get(host, 0):
            return
        self._floors[host] = sequence
        for slot in self._offers.values():
            for key in [key for key, known in slot.items() if key[0] == host and known.offer.sequence < sequence]:
                self._drop(slot, key)

    def sunset(self, terms: bytes, moment: int) -> None:
        """From second `moment` on nothing is locked under these terms; 0: none is announced, or it was called off."""
        if moment:
            self._sunsets[terms] = moment
        else:
            self._sunsets.pop(terms, None)

    def beat(self, host: Address, free: int, waiting: int, now: float) -> None:
        state = self.host(host)
        state.free, state.waiting, state.beat_at = free, waiting, now

    def gone(self, host: Address) -> None:
        """The host's link is lost: it reports no more until it is back."""
        self.host(host).beat_at = None

    def bar(self, host: Address, why: str) -> None:
        """Keep a host out, with the reason it will read; an empty reason lets it in again."""
        self.host(host).barred = why

    def doubt(self, hosts: Iterable[Address]) -> None:
        """These hosts, and no others, come after all that are free."""
        self._doubted = frozenset(hosts)

    def started(self, host: Address) -> None:
        self.host(host).busy += 1

    def ended(self, host: Address) -> None:
        state = self.host(host)
        state.busy = max(0, state.busy - 1)

    def worked(self, host: Address) -> None:
        self.host(host).failures = 0

    def failed(self, host: Address, now: float, *, blame: bool) -> None:
        """A job on this host broke. A host that contradicted the protocol is left alone for an hour."""
        state = self.host(host)
        state.failures += 1
        pause = SHUN_LIAR_SECONDS if blame else min(SHUN_SECONDS * 2 ** (state.failures - 1), SHUN_LIAR_SECONDS)
        state.shunned_until = max(state.shunned_until, now + pause)

    def forgive(self, host: Address) -> None:
        """The host is back after a loss that was not a lie: it may be chosen at once."""
        state = self.host(host)
        if state.shunned_until and state.failures:
            state.failures, state.shunned_until = 0, 0.0

    def prune(self, now: float) -> None:
        for agent, slot in list(self._offers.items()):
            for key in [key for key, known in slot.items() if known.offer.expires <= now]:
                self._drop(slot, key)
            if not slot:
                del self._offers[agent]
        named = {terms for slot in self._offers.values() for _, terms in slot}
        # Others are looked up when a host names them.
        self._sunsets = {terms: moment for terms, moment in self._sunsets.items() if terms in named}
        for host in [host for host, state in self._hosts.items() if host not in self._count and not state.busy]:
            # A barred host is looked up again when it comes back; keys are free, so nobody stays for being barred.
            if self._hosts[host].beat_at is None and self._hosts[host].shunned_until <= now:
                del self._hosts[host]

    def host(self, host: Address) -> HostState:
        return self._hosts.setdefault(host, HostState())

    def hosts(self) -> dict[Address, HostState]:
        return dict(self._hosts)

    def agents(self) -> list[AgentId]:
        return [agent for agent, slot in self._offers.items() if slot]

    def offers(self, agent: AgentId | None = None) -> list[KnownOffer]:
        if agent is not None:
            return list(self._offers.get(agent, {}).values())
        return [known for slot in self._offers.values() for known in slot.values()]

    @property
    def size(self) -> int:
        """Offers held, of all hosts."""
        return self._total

    def candidates(self, agent: AgentId) -> list[Candidate]:
        return [self._candidate(known) for known in self._offers.get(agent, {}).values()]

    def _candidate(self, known: KnownOffer) -> Candidate:
        state = self.host(known.host)
        barred = state.barred
        if self._needs_beats and state.beat_at is None and not barred:
            barred = "is not linked"
        return Candidate(
            offer=known,
            free=state.free,
            waiting=state.waiting,
            beat_at=state.beat_at,
            busy=state.busy,
            failures=state.failures,
            shunned_until=state.shunned_until,
            barred=barred,
            sunset_at=self._sunsets.get(known.terms, 0),
            doubted=known.host in self._doubted,
        )

    def _drop(self, slot: dict[tuple[Address, bytes], KnownOffer], key: tuple[Address, bytes]) -> None:
        del slot[key]
        self._total -= 1
        self._count[key[0]] -= 1
        if not self._count[key[0]]:
            del self._count[key[0]]
