"""Gossip as values: whatever neighbours say, in whatever order, memory is bounded and nothing forged goes on."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from factories import key
from lading_net.core.heard import Seen, Shelf
from lading_net.core.kademlia import decode_answer, decode_question
from lading_net.core.mesh import Blame, Deliver, Habits, Mesh, Send
from lading_net.core.quotas import Rate
from lading_net.core.rpc import Cutter, Message, Prune, Rpc, decode_rpc, encode_rpc, genuine, named, sign
from lading_net.errors import BadMessage, ProtocolViolation
from lading_protocol.ids import Address

SOME = settings(max_examples=150, deadline=None)
TOPICS = ("/a", "/b", "/c")
PEERS = [key(f"peer {number}") for number in range(12)]
HABITS = Habits(asked=20, lists=3, promises=30, grafts=5, topics=2, messages=Rate(20, 2), shelf=2_000)
GENUINE = [sign(PEERS[n % 12], TOPICS[n % 3], b"%d" % n, n.to_bytes(8, "big")) for n in range(24)]
FORGED = [Message(one.sender, b"forged", one.seqno, one.topic, one.signature) for one in GENUINE]

topics = st.sampled_from(TOPICS)
ids = st.sampled_from([one.id for one in GENUINE]) | st.binary(max_size=60)
lists = st.lists(ids, max_size=30).map(tuple)
some_topics = st.lists(topics, max_size=4).map(tuple)
rpcs = st.builds(
    Rpc,
    joined=some_topics,
    left=some_topics,
    messages=st.lists(st.sampled_from(GENUINE + FORGED), max_size=4).map(tuple),
    have=st.lists(st.tuples(topics, lists), max_size=4).map(tuple),
    want=lists,
    graft=some_topics,
    prune=st.lists(st.builds(Prune, topics, st.integers(0, 2**64 - 1)), max_size=3).map(tuple),
)
who = st.integers(0, len(PEERS) - 1)
steps = st.lists(
    st.tuples(st.just("hear"), who, rpcs)
    | st.tuples(st.just("join"), who, st.booleans())
    | st.tuples(st.just("part"), who, st.none())
    | st.tuples(st.just("subscribe"), topics, st.none())
    | st.tuples(st.just("leave"), topics, st.none())
    | st.tuples(st.just("publish"), topics, st.none())
    | st.tuples(st.just("tick"), who, st.none()),
    max_size=60,
)


class Watched:
    """A mesh, and what must hold of it after every step."""

    def __init__(self) -> None:
        self.me = key("me")
        self.mesh = Mesh(self.me.address, random.Random(1), HABITS)
        self.now = 0.0
        self.linked: set[Address] = set()
        self.mine: set[bytes] = set()
        self._delivered: list[tuple[str, bytes]] = []
        self._seqno = 1_000

    def step(self, what: str, whom: object, more: object) -> None:
        self.now += 0.1
        mesh, now = self.mesh, self.now
        if what in ("subscribe", "leave"):
            getattr(mesh, what)(whom, now)
        elif what == "publish":
            self._seqno += 1
            message = sign(self.me, str(whom), b"mine", self._seqno.to_bytes(8, "big"))
            self.mine.add(message.id)
            mesh.publish(message, now)
        elif what == "tick":
            self.now += 1.0
            mesh.tick(self.now)
        else:
            peer = PEERS[int(str(whom))].address
            if what == "join":
                self.linked.add(peer)
                mesh.join(peer, bool(more), now)
            elif what == "part":
                self.linked.discard(peer)
                mesh.part(peer)
            else:
                assert isinstance(more, Rpc)
                mesh.hear(peer, more, 100, now)
        self._check_effects()
        self._check_bounds()

    def _check_effects(self) -> None:
        effects, self.mesh.effects = self.mesh.effects, []
        for effect in effects:
            match effect:
                case Send(peers, data):
                    assert set(peers) <= self.linked
                    assert len(set(peers)) == len(peers)
                    (piece,) = Cutter().feed(data)
                    for message in decode_rpc(piece).messages:
                        assert message.id in self.mine or message in GENUINE
                        assert genuine(message)
                case Deliver(topic, data):
                    assert topic in self.mesh.topics
                    assert (topic, data) not in self._delivered  # all are younger than what is remembered
                    self._delivered.append((topic, data))
                case Blame(peer, points, _):
                    assert points > 0
                    assert peer in self.linked

    def _check_bounds(self) -> None:
        mesh = self.mesh
        for topic, members in mesh.topics.items():
            assert members <= mesh._listening(topic)
            assert len(members) <= HABITS.high + len(PEERS)
        assert all(len(one.topics) <= HABITS.topics for one in mesh._neighbours.values())
        assert len(mesh._promises) <= HABITS.promises
        assert len(mesh._backoff) <= len(PEERS) * len(TOPICS)
        assert set(mesh._neighbours) == self.linked


@SOME
@given(steps)
def test_whatever_neighbours_say_nothing_forged_goes_on_and_all_is_bounded(
    script: list[tuple[str, object, object]],
) -> None:
    watched = Watched()
    for topic in TOPICS[:2]:
        watched.step("subscribe", topic, None)
    for number in range(6):
        watched.step("join", number, number % 2 == 0)
    for step in script:
        watched.step(*step)


@SOME
@given(rpcs, st.lists(st.integers(1, 400), min_size=1, max_size=20))
def test_what_is_said_comes_back_however_it_is_torn(rpc: Rpc, sizes: list[int]) -> None:
    wire, cutter, pieces, at = encode_rpc(rpc) * 2, Cutter(), list[bytes](), 0
    for turn in range(10_000):
        if at >= len(wire):
            break
        size = sizes[turn % len(sizes)]
        pieces += cutter.feed(wire[at : at + size])
        at += size
    assert [decode_rpc(piece) for piece in pieces] == [rpc, rpc]


@SOME
@given(
    st.binary(max_size=300)
    | st.lists(st.sampled_from([b"\x0a", b"\x12", b"\x1a", b"\x08", b"\xff", b"\x00", b"\x7f"])).map(b"".join)
)
def test_garbage_is_read_or_refused_and_nothing_else(data: bytes) -> None:
    for reader, refusal in (
        (decode_rpc, ProtocolViolation),
        (decode_answer, BadMessage),
        (decode_question, BadMessage),
    ):
        try:
            reader(data)
        except refusal:
            pass


@SOME
@given(st.lists(st.tuples(st.binary(max_size=2), st.floats(0, 100))), st.integers(1, 20))
def test_what_was_seen_lately_is_known_and_room_is_bounded(script: list[tuple[bytes, float]], most: int) -> None:
    seen, now, last = Seen(120.0, most), 0.0, dict[bytes, float]()
    for name, pause in script:
        now += pause
        seen.add(name, now)
        last[name] = now
        assert seen.has(name)
        assert len(seen) <= 2 * most
        if len(last) < most:
            assert all(seen.has(each) for each, when in last.items() if now - when <= 120)


@SOME
@given(st.lists(st.tuples(st.integers(0, 23), st.booleans())))
def test_a_shelf_never_holds_more_than_it_may(script: list[tuple[int, bool]]) -> None:
    shelf = Shelf(windows=3, most=20)
    for number, ends in script:
        shelf.put(GENUINE[number])
        assert sum(len(one.data) for one in shelf._kept.values()) <= 20
        assert shelf.take(named(GENUINE[number].id), 0, 1 << 30) == GENUINE[number]
        if ends:
            shelf.tick()
        assert set(shelf.recent("/a", 2)) <= {one.id for one in GENUINE}
