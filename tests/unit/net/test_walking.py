"""Kademlia's search: it comes to the nearest whatever it begins with, and the silent cost it little."""

from __future__ import annotations

import asyncio
import random

import pytest

from factories import key
from lading_net.core.kademlia import NEAREST, Contact, spot
from lading_net.gossip import walking
from lading_net.gossip.walking import AT_ONCE, MOST_ASKED, walk
from lading_net.peer import Endpoint, PeerId

PEERS = [
    Contact(PeerId.from_public_key(key(f"peer {number}").public_key), (Endpoint("ip4", "127.0.0.1", 4000 + number),))
    for number in range(300)
]


class World:
    """Each knows its nearest and some others, as Kademlia's tables do. The silent answer nothing after `patience`."""

    def __init__(self, seed: int, silent: float = 0.0, patience: float = 0.0) -> None:
        rng = random.Random(seed)
        self.tables = {one.peer: self.nearest(spot(one.peer.raw), 12) + rng.sample(PEERS, 12) for one in PEERS}
        self.silent = set(rng.sample(PEERS, int(silent * len(PEERS))))
        self.patience = patience
        self.asked: list[Contact] = []
        self.most = self._running = 0

    @staticmethod
    def nearest(target: int, count: int) -> list[Contact]:
        return sorted(PEERS, key=lambda one: spot(one.peer.raw) ^ target)[:count]

    def walk(self, target: int, start: list[Contact], around: int) -> tuple[list[Contact], list[Contact]]:
        async def ask(one: Contact) -> list[Contact] | None:
            self.asked.append(one)
            self._running += 1
            self.most = max(self.most, self._running)
            try:
                await asyncio.sleep(self.patience if one in self.silent else 0)
            finally:
                self._running -= 1
            known = self.tables[one.peer]
            return (
                None if one in self.silent else sorted(known, key=lambda each: spot(each.peer.raw) ^ target)[:NEAREST]
            )

        return asyncio.run(walk(target, start, ask, around))


@pytest.mark.parametrize("seed", range(20))
def test_it_comes_to_the_nearest_from_anywhere(seed: int) -> None:
    world, rng = World(seed), random.Random(seed)
    target = spot(rng.randbytes(32))
    answered, heard = world.walk(target, rng.sample(PEERS, 1), 4)
    assert answered[:4] == world.nearest(target, 4)
    assert len(world.asked) == len(set(world.asked)) <= MOST_ASKED
    assert world.most <= AT_ONCE
    assert not set(answered) & set(heard)


def test_it_ends_where_nobody_is_known_and_where_nobody_answers() -> None:
    assert World(1).walk(0, [], 4) == ([], [])
    assert World(1, silent=1.0).walk(0, PEERS[:5], 4) == ([], [])


def test_the_silent_hold_up_only_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walking, "SLOW_SECONDS", 0.02)
    world = World(3, silent=0.4, patience=0.5)
    start = next(one for one in PEERS if one not in world.silent)
    answered, _ = world.walk(0, [start], 8)
    assert world.most > AT_ONCE  # others were asked meanwhile
    there = [one for one in world.nearest(0, 40) if one not in world.silent]
    assert answered[:4] == there[:4]
    assert len(world.asked) <= MOST_ASKED
