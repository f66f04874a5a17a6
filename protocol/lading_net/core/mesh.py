"""Gossipsub 1.1 as a state machine: whom a message goes to, whom we ask for what we missed, who sits in our mesh.

Takes what neighbours said, and ticks once a second; what follows is in `effects`, for the caller to take. Knows no
stream, no clock and no randomness of its own. Source: libp2p's specification pubsub/gossipsub, versions 1.0 and 1.1.

Of its peer scores only what a peer did wrong counts (`Blame`): good deeds could be saved up for an attack. Whom a
mesh keeps when it is too full is decided by who was first with messages, by chance, and by who dialled whom.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import Protocol, TypeVar

import msgspec

from lading_net.core.heard import Seen, Shelf
from lading_net.core.quotas import Bucket, Rate
from lading_net.core.rpc import MAX_GOSSIP_BYTES, Message, Prune, Rpc, author, encode_rpc, named, proved
from lading_net.errors import BadEndpoint
from lading_protocol.ids import Address

T = TypeVar("T")


class Chance(Protocol):
    """random.Random, as far as it is needed."""

    def sample(self, population: Sequence[T], k: int) -> list[T]: ...


_ASKED_AT_ONCE = 2
_FEW = 8
_SLACK = 2.0
"""Seconds that we wait longer than we must, because the peer's clock of a backoff began later than ours."""


class Habits(msgspec.Struct, frozen=True):
    """Seconds are ticks. Rates are of one neighbour: it forwards what many hosts publish."""

    degree: int = 6
    low: int = 4
    high: int = 8
    outbound: int = 2  # in each mesh, of those whom we dialled: nobody else chose them
    best: int = 4  # kept when a mesh is thinned, by who was first with messages
    told: int = 3  # outside the mesh, who hear what there is; more, where that is less than a quarter of them
    flood: int = 32  # neighbours who hear at once what we say ourselves: a mesh full of the deaf does not silence us
    windows: int = 2  # for so many ticks
    history: int = 5  # ticks for which a message can be asked for
    shelf: int = 16 * 1024 * 1024
    backoff: int = 60  # seconds between leaving a mesh and coming back
    soon: int = 10  # the same where we left the topic, and come back
    seen: float = 120.0
    promise: float = 3.0  # to send what one said it had
    lists: int = 10  # of ids, from one neighbour in a tick
    listed: int = 2_000  # ids in them
    asked: int = 1_000  # ids, of one neighbour in a tick
    promises: int = 16_384  # of all, not kept yet
    again: int = 3  # times that one neighbour gets the same message
    pauses: int = 4_096  # backoffs, of all who ever were neighbours
    topics: int = 64  # of one neighbour
    grafts: int = 64  # in a tick
    messages: Rate = Rate(burst=1_000, second=500)
    bytes: Rate = Rate(burst=1024 * 1024, second=512 * 1024)  # each RPC counts for so many more as reading it costs
    overhead: int = 256
    checks: Rate = Rate(burst=4_000, second=1_500)  # of signatures, for all together: half is shared out evenly
    forged: float = 20.0
    early: float = 5.0
    broken: float = 4.0
    excess: float = 2.0
    """Points for: a forged message, a graft before its time, a promise, and more than the limits above."""


class Send(msgspec.Struct, frozen=True):
    """Bytes for these neighbours. Who does not keep up may miss them."""

    peers: tuple[Address, ...]
    data: bytes


class Deliver(msgspec.Struct, frozen=True):
    topic: str
    data: bytes


class Blame(msgspec.Struct, frozen=True):
    peer: Address
    points: float
    why: str


Effect = Send | Deliver | Blame


class _Neighbour:
    def __init__(self, dialled: bool, habits: Habits, now: float) -> None:
        self.dialled = dialled
        self.topics: set[str] = set()
        self.messages, self.bytes = Bucket(habits.messages, now), Bucket(habits.bytes, now)
        self.first = 0.0  # messages that it was the first to bring, those of long ago counting less
        self.helped = 0  # and of them, since the last tick, those that it had to be asked for
        self.lists = self.listed = self.asked = self.wished = self.grafts = self.checked = 0
        self.owes = 0  # messages that it said it had and that we asked it for
        self.introduced: set[str] = set()  # topics that it has listened to at some time
        self.ticks = 0


class Mesh:
    """Of the peer `me`. `effects` grow with each call."""

    def __init__(self, me: Address, rng: Chance, habits: Habits | None = None) -> None:
        self._me, self._rng = me, rng
        self.habits = habits = habits or Habits()
        self.effects: list[Effect] = []
        self.topics: dict[str, set[Address]] = {}  # ours, each with its mesh
        self.dropped: Counter[str] = Counter()
        self._neighbours: dict[Address, _Neighbour] = {}
        self._backoff: dict[tuple[str, Address], float] = {}
        self._seen, self._shelf = Seen(habits.seen), Shelf(habits.history, habits.shelf)
        self._checks = Bucket(msgspec.structs.replace(habits.checks, second=habits.checks.second / 2), 0.0)
        self._promises: dict[bytes, dict[Address, float]] = {}  # until when who sends what it said it had
        self._own: dict[str, tuple[Message, float]] = {}  # what we published last, and when

    @property
    def starved(self) -> bool:
        """Some mesh has fewer members than it should: our neighbours' meshes are full, so that we need others."""
        return any(len(members) < self.habits.low for members in self.topics.values())

    # -- what we do

    def join(self, peer: Address, dialled: bool, now: float) -> None:
        """A neighbour hears, on a stream of ours that is new, what we listen to. What it said of itself stays: it may
        have said it on this link already."""
        if peer not in self._neighbours:
            self._neighbours[peer] = _Neighbour(dialled, self.habits, now)
        self._leave_meshes(peer)
        if self.topics:
            self._tell([peer], Rpc(joined=tuple(self.topics)))

    def anew(self, peer: Address) -> None:
        """It speaks on a new stream, and says first of all what it listens to."""
        if (one := self._neighbours.get(peer)) is not None:
            one.topics.clear()
            self._leave_meshes(peer)

    def part(self, peer: Address) -> None:
        self._neighbours.pop(peer, None)
        self._leave_meshes(peer)

    def _leave_meshes(self, peer: Address) -> None:
        for members in self.topics.values():
            members.discard(peer)

    def subscribe(self, topic: str, now: float) -> None:
        if topic in self.topics:
            return
        self.topics[topic] = set()
        self._tell(self._neighbours, Rpc(joined=(topic,)))
        self._fill(topic, now)

    def leave(self, topic: str, now: float) -> None:
        members = self.topics.pop(topic, None)
        if members is None:
            return
        for peer in members:
            self._hold_off(topic, peer, now + self.habits.soon)
        self._tell(members, Rpc(left=(topic,), prune=(Prune(topic, self.habits.soon),)))
        self._tell(self._neighbours.keys() - members, Rpc(left=(topic,)))

    def publish(self, message: Message, now: float) -> None:
        self._seen.add(named(message.id), now)
        self._shelf.put(message)
        self._own[message.topic] = message, now
        members = self.topics.get(message.topic, set())
        others = self._some(self._listening(message.topic) - members, self.habits.flood - len(members))
        self._tell([*members, *others], Rpc(messages=(message,)))

    # -- what neighbours say

    def wait(self, peer: Address, size: int, now: float) -> float:
        """Seconds until an RPC of this size on the wire may be heard; asked before anything is made of it."""
        one = self._neighbours.get(peer)
        return 0.0 if one is None else one.bytes.wait(now, size + self.habits.overhead)

    def hear(self, peer: Address, rpc: Rpc, size: int, now: float) -> None:
        """What comes before its time, by `wait`, is not heard."""
        one = self._neighbours.get(peer)
        if one is None:
            return
        if not one.bytes.take(now, size + self.habits.overhead):
            self.dropped["bytes"] += 1
            return
        self.dropped["broken"] += rpc.broken  # nobody is blamed: they may be good with other implementations
        self._heard_topics(peer, one, rpc, now)
        for message in rpc.messages:
            self._heard_message(peer, one, message, now)
        for topic, names in rpc.have:
            self._heard_of(peer, one, topic, names, now)
        if rpc.want:
            self._give(peer, one, rpc.want)
        for prune in rpc.prune:
            self._pruned(peer, prune, now)
        for topic in rpc.graft:
            self._grafted(peer, one, topic, now)

    def _heard_topics(self, peer: Address, one: _Neighbour, rpc: Rpc, now: float) -> None:
        for topic in rpc.joined:
            if topic in one.topics:
                continue
            if len(one.topics) >= self.habits.topics:
                self._blame(peer, self.habits.excess, "too many topics")
                return
            one.topics.add(topic)
            self._introduce(peer, one, topic, now)
            if topic in self.topics and len(self.topics[topic]) < self.habits.low:
                self._fill(topic, now)
        for topic in rpc.left:
            one.topics.discard(topic)
            self.topics.get(topic, set()).discard(peer)

    def _introduce(self, peer: Address, one: _Neighbour, topic: str, now: float) -> None:
        """A newcomer need not wait until we next say who we are. Who comes back must: to listen anew costs it nothing.
        And only what all others remember: they would pass on an older message anew."""
        if topic in one.introduced or len(one.introduced) >= self.habits.topics:
            return
        one.introduced.add(topic)
        message, at = self._own.get(topic, (None, 0.0))
        if message is not None and now - at < self.habits.seen / 2:
            self._tell([peer], Rpc(messages=(message,)))

    def _heard_message(self, peer: Address, one: _Neighbour, message: Message, now: float) -> None:
        name = named(message.id)
        asked = peer in self._promises.pop(name, ())
        if message.topic not in self.topics or self._seen.has(name):
            return
        if not one.messages.take(now) or not self._may_check(one, now):
            self.dropped["messages"] += 1
            return
        try:
            writer = author(message)
        except BadEndpoint:
            return  # a libp2p peer with another kind of key: it has no address, and no offers
        if writer == self._me:
            return
        proof = proved(message)
        if proof is None:
            self._blame(peer, self.habits.forged, "a message that its author did not sign")
            return
        message = proof
        self._seen.add(name, now)
        self._shelf.put(message)
        one.first += 1
        one.helped += asked
        self.effects.append(Deliver(message.topic, message.data))
        self._tell(self.topics[message.topic] - {peer, writer}, Rpc(messages=(message,)))

    def _may_check(self, one: _Neighbour, now: float) -> bool:
        """Each neighbour has a share of its own, so that a crowd of others cannot use up what there is in all."""
        one.checked += 1
        return one.checked <= self.habits.checks.second / 2 / len(self._neighbours) or self._checks.take(now)

    def _heard_of(self, peer: Address, one: _Neighbour, topic: str, ids: Iterable[bytes], now: float) -> None:
        one.lists += 1
        if one.lists > self.habits.lists:
            self.dropped["lists"] += 1
            if one.lists == 10 * self.habits.lists:
                self._blame(peer, self.habits.excess, "too many lists of messages")
            return
        if topic not in self.topics:
            return
        ids = tuple(ids)[: max(0, self.habits.listed - one.listed)]
        one.listed += len(ids)
        new = [each for each in dict.fromkeys(ids) if self._wanted(named(each), peer)]
        share = self.habits.promises // max(_FEW, len(self._neighbours)) - one.owes  # so that nobody takes up all
        new = self._some(new, min(self.habits.asked - one.asked, share))
        if not new:
            return
        one.asked += len(new)
        one.owes += len(new)
        for each in new:
            self._promises.setdefault(named(each), {})[peer] = now + self.habits.promise
        self._tell([peer], Rpc(want=tuple(new)))

    def _wanted(self, name: bytes, peer: Address) -> bool:
        """Two are asked for the same: one of them may only have said that it has it."""
        asked = self._promises.get(name, {})
        return not self._seen.has(name) and peer not in asked and len(asked) < _ASKED_AT_ONCE

    def _give(self, peer: Address, one: _Neighbour, ids: Sequence[bytes]) -> None:
        """What is still on the shelf, in RPCs that are not too long."""
        parcel: list[Message] = []
        size = 0
        ids = ids[: max(0, self.habits.asked - one.wished)]
        one.wished += len(ids)
        for each in dict.fromkeys(ids):
            message = self._shelf.take(named(each), peer, self.habits.again)
            if message is None:
                continue
            if size + len(message.data) > MAX_GOSSIP_BYTES and parcel:
                self._tell([peer], Rpc(messages=tuple(parcel)))
                parcel, size = [], 0
            parcel.append(message)
            size += len(message.data)
        if parcel:
            self._tell([peer], Rpc(messages=tuple(parcel)))

    def _grafted(self, peer: Address, one: _Neighbour, topic: str, now: float) -> None:
        members = self.topics.get(topic)
        one.grafts += 1
        if one.grafts > self.habits.grafts:
            self._blame(peer, self.habits.excess, "grafts without end")
            return
        if members is None or peer in members or topic not in one.topics:
            return  # what makes no sense is no reason to answer: the specification, against floods
        if self._backoff.get((topic, peer), 0.0) > now:
            self._blame(peer, self.habits.early, "a graft before its time")
            self._hold_off(topic, peer, now + self.habits.backoff)
        elif len(members) < self.habits.high or one.dialled:
            members.add(peer)
            return
        self._prune(topic, [peer], now)

    def _pruned(self, peer: Address, prune: Prune, now: float) -> None:
        members = self.topics.get(prune.topic)
        if members is None:
            return
        members.discard(peer)
        pause = min(prune.backoff, 3_600) or self.habits.backoff
        self._hold_off(prune.topic, peer, now + pause)

    # -- once a second

    def tick(self, now: float) -> None:
        self._settle(now)
        for topic, members in self.topics.items():
            self._help(topic, members, now)
            if len(members) < self.habits.low:
                self._fill(topic, now)
            elif len(members) > self.habits.high:
                self._thin(topic, members, now)
            self._anchor(topic, members, now)
        self._spread_word()
        self._shelf.tick()
        self._backoff = {key: until for key, until in self._backoff.items() if until + _SLACK > now}
        if len(self._backoff) > self.habits.pauses:  # names are free: those who are gone are not waited for, then
            self._backoff = {key: until for key, until in self._backoff.items() if key[1] in self._neighbours}
        for one in self._neighbours.values():
            one.helped = one.lists = one.listed = one.asked = one.wished = one.grafts = one.checked = 0
            one.first *= 0.98
            one.ticks += 1

    def _settle(self, now: float) -> None:
        """Who said it had a message, was asked for it and did not send it: blamed once a tick, however many it is."""
        late: set[Address] = set()
        for name, asked in list(self._promises.items()):
            late |= {peer for peer, until in asked.items() if until <= now}
            left = {peer: until for peer, until in asked.items() if until > now and peer in self._neighbours}
            if left:
                self._promises[name] = left
            else:
                del self._promises[name]
        owed = Counter(peer for asked in self._promises.values() for peer in asked)
        for peer, one in self._neighbours.items():
            one.owes = owed[peer]
        for peer in self._some(late, len(late)):
            if peer in self._neighbours:
                self._blame(peer, self.habits.broken, "a message that it said it had did not come")

    def _help(self, topic: str, members: set[Address], now: float) -> None:
        """Whoever had to be asked for what the mesh kept from us belongs in it: the opportunistic grafting of 1.1."""
        good = [peer for peer in self._listening(topic) - members if self._neighbours[peer].helped > 1]
        self._graft(topic, good, 2, now)

    def _fill(self, topic: str, now: float) -> None:
        members = self.topics[topic]
        self._graft(topic, self._listening(topic) - members, self.habits.degree - len(members), now)

    def _anchor(self, topic: str, members: set[Address], now: float) -> None:
        missing = self.habits.outbound - self._outbound(members)
        if missing > 0 and len(members) >= self.habits.low:
            others = [peer for peer in self._listening(topic) - members if self._neighbours[peer].dialled]
            self._graft(topic, others, missing, now)

    def _thin(self, topic: str, members: set[Address], now: float) -> None:
        order = self._some(members, len(members))
        order.sort(key=lambda peer: -self._neighbours[peer].first)
        rest = self._some(order[self.habits.best :], len(order))
        staying = order[: self.habits.best] + rest
        kept = staying[: self.habits.degree]
        missing = self.habits.outbound - self._outbound(kept)
        ours = [peer for peer in staying[self.habits.degree :] if self._neighbours[peer].dialled]
        for peer in ours[: max(0, missing)]:
            strangers = [each for each in kept[self.habits.best :] if not self._neighbours[each].dialled]
            if strangers:
                kept[kept.index(strangers[-1])] = peer
        leaving = [peer for peer in order if peer not in kept]
        members.difference_update(leaving)
        self._prune(topic, leaving, now)

    def _spread_word(self) -> None:
        for topic, near in self.topics.items():
            ids = self._shelf.recent(topic, self.habits.windows)
            if ids:
                listening = self._listening(topic)
                far = listening - near
                others = self._some(far, max(self.habits.told, len(far) // 4))
                others += [peer for peer in listening & near if self._neighbours[peer].ticks < self.habits.windows]
                ids = self._some(ids, self.habits.asked)
                self._tell(others, Rpc(have=((topic, tuple(ids)),)))

    # -- inside

    def _graft(self, topic: str, candidates: Iterable[Address], most: int, now: float) -> None:
        known = [peer for peer in candidates if peer in self._neighbours]
        free = [peer for peer in known if self._backoff.get((topic, peer), -_SLACK) + _SLACK <= now]
        chosen = self._some(free, most)
        self.topics[topic].update(chosen)
        self._tell(chosen, Rpc(graft=(topic,)))

    def _prune(self, topic: str, peers: Iterable[Address], now: float) -> None:
        for peer in peers:
            self._hold_off(topic, peer, now + self.habits.backoff)
            self._tell([peer], Rpc(prune=(Prune(topic, self.habits.backoff),)))

    def _hold_off(self, topic: str, peer: Address, until: float) -> None:
        self._backoff[topic, peer] = max(self._backoff.get((topic, peer), 0.0), until)

    def _listening(self, topic: str) -> set[Address]:
        return {peer for peer, one in self._neighbours.items() if topic in one.topics}

    def _outbound(self, peers: Iterable[Address]) -> int:
        return sum(self._neighbours[peer].dialled for peer in peers)

    def _some(self, of: Iterable[T], most: int) -> list[T]:
        """At most so many of them, in any order."""
        found = sorted(of) if isinstance(of, AbstractSet) else list(of)
        return self._rng.sample(found, max(0, min(most, len(found))))

    def _tell(self, peers: Iterable[Address], rpc: Rpc) -> None:
        told = tuple(peers)
        if told:
            self.effects.append(Send(told, encode_rpc(rpc)))

    def _blame(self, peer: Address, points: float, why: str) -> None:
        self.effects.append(Blame(peer, points, why))
