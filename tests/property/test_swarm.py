"""Whatever peers do, every chunk lands exactly once or the fetch ends with a reason for every peer."""

from collections import deque

from hypothesis import given, settings
from hypothesis import strategies as st

from lading.core.swarm import Rules, Swarm, Wanted

RULES = Rules(silence=5.0, slowest=20.0)
BLOBS = (b"a" * 32, b"b" * 32)


class Peer:
    """One that follows its habit for every chunk asked: sends it, lies, says that it has none, dies, or goes silent."""

    def __init__(self, habits: list[str], pace: float) -> None:
        self.habits = habits
        self.pace = pace
        self.queue: deque[int] = deque()
        self.ready = 0.0
        self.answered = 0

    def habit(self) -> str:
        return self.habits[self.answered % len(self.habits)]


class World:
    """Time goes in steps of a tenth; arrivals are checked one step after they came, as threads would."""

    def __init__(self, swarm: Swarm, wanted: list[Wanted], peers: dict[int, Peer], late: set[int]) -> None:
        self.swarm, self.wanted, self.peers, self.late = swarm, wanted, peers, late
        self.now = 0.0
        self.accepted: list[int] = []
        self.checking: list[tuple[int, int, bool]] = []
        for name in peers:
            if name not in late:
                swarm.join(name, 0.0)

    def step(self) -> None:
        self.now += 0.1
        checking, self.checking = self.checking, []
        for name, number, right in checking:
            if not right:
                self.swarm.refuse(number, name, "it lied")
            elif self.swarm.accept(number):
                self.accepted.append(number)
        for name, peer in self.peers.items():
            if name in self.swarm:
                self._serve(name, peer)
        self.swarm.tick(self.now)

    def _serve(self, name: int, peer: Peer) -> None:
        asked = self.swarm.ask(name, self.now)
        if not asked and not peer.queue and self.swarm.lacks_all(name):
            self.swarm.leave(name, "it does not hold it")
            return
        assert len(set(asked)) == len(asked)
        if not peer.queue and asked:
            peer.ready = self.now + peer.pace
        peer.queue.extend(asked)
        assert len(peer.queue) == self.swarm.owes(name) <= RULES.most
        while peer.queue and peer.ready <= self.now and name in self.swarm:
            peer.ready += peer.pace
            self._answer(name, peer)

    def _answer(self, name: int, peer: Peer) -> None:
        habit = peer.habit()
        if habit == "silent":
            return
        number = peer.queue.popleft()
        peer.answered += 1
        self.swarm.heard(name, self.now)
        match habit:
            case "dies":
                peer.queue.clear()
                self.swarm.leave(name, "the link went away")
            case "lacks":
                self.swarm.absent(name)
            case _:
                self.swarm.sent(name, self.now)
                self.checking.append((name, number, habit == "sends"))


habits = st.lists(
    st.sampled_from(["sends", "sends", "sends", "lies", "lacks", "dies", "silent"]), min_size=1, max_size=6
)
crowd = st.lists(st.tuples(habits, st.sampled_from([0.01, 0.1, 1.0, 8.0])), min_size=1, max_size=5)


@given(st.integers(1, 40), crowd, st.sets(st.integers(0, 4)), st.integers(0, 30))
@settings(max_examples=300)
def test_every_chunk_lands_once_or_every_peer_has_a_reason(
    count: int, people: list[tuple[list[str], float]], late: set[int], joins_at: int
) -> None:
    wanted = [Wanted(BLOBS[number % 2], 1 << 20) for number in range(count)]
    swarm = Swarm(wanted, RULES)
    world = World(swarm, wanted, {name: Peer(*one) for name, one in enumerate(people)}, late)
    for step in range(20_000):
        if step == joins_at:
            for name in world.peers:
                swarm.join(name, world.now)
        world.step()
        if (
            step > joins_at
            and (not swarm.left or not any(name in swarm for name in world.peers))
            and not world.checking
        ):
            break
    assert len(set(world.accepted)) == len(world.accepted)
    if swarm.left:
        assert set(swarm.reasons) == set(world.peers)
        assert all(swarm.reasons.values())
    else:
        assert sorted(world.accepted) == list(range(count))


@given(st.integers(1, 60), crowd)
def test_one_honest_peer_is_enough(count: int, people: list[tuple[list[str], float]]) -> None:
    wanted = [Wanted(BLOBS[0], 1 << 20)] * count
    swarm = Swarm(wanted, RULES)
    peers = {name: Peer(*one) for name, one in enumerate(people)} | {99: Peer(["sends"], 0.1)}
    world = World(swarm, wanted, peers, set())
    for _ in range(20_000):
        world.step()
        if not swarm.left:
            break
    assert sorted(world.accepted) == list(range(count))
