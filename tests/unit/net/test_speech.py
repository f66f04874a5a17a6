"""Versions N and N - 1 talk; N and N - 2 say who must update; a peer without the question is of the first version."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from factories import key
from lading_net.clock import run_virtual
from lading_net.errors import BadMessage, NoCommonVersion
from lading_net.memory import MemoryNetwork
from lading_net.messages import MessageStream
from lading_net.ports import Stream
from lading_net.speech import agreed_with, serve_speech
from lading_protocol import OLDEST, VERSION
from lading_protocol.ids import Address
from lading_protocol.speech import FEATURES, MOST_FEATURES, OURS, SPEECH, Agreed, Speech, agree, dated, time_of

speeches = st.builds(
    lambda newest, before, features: Speech(max(1, newest - before), newest, tuple(features)),
    st.integers(1, 9),
    st.integers(0, 2),
    st.sets(st.sampled_from(["relay", "call_back", "later"])),
)


@given(speeches, speeches)
def test_both_ends_come_to_the_same_and_can_both_speak_it(one: Speech, other: Speech) -> None:
    found, back = agree(one, other), agree(other, one)
    if isinstance(found, str):
        assert isinstance(back, str)
        assert one.newest < other.oldest or other.newest < one.oldest
        assert ("this program must" in found) is (one.newest < other.newest)
        return
    assert found == back
    assert max(one.oldest, other.oldest) <= found.version <= min(one.newest, other.newest)
    assert found.features == set(one.features) & set(other.features)


def spoken(theirs: Speech | None, ours: Speech) -> Agreed:
    """What a peer of ours agrees on with one that speaks `theirs`, or does not know the question."""

    async def main() -> Agreed:
        network = MemoryNetwork()
        one, other = network.transport(key("one")), network.transport(key("other"))
        if theirs is not None:
            serve_speech(other, theirs)
        link = await one.dial(await other.listen("/ip4/10.0.0.1/tcp/4101"))
        return await agreed_with(link, ours)

    return run_virtual(main())


def program(version: int) -> Speech:
    """A program of that version, as each release is made."""
    return Speech(max(1, version - 1), version)


def test_n_and_n_minus_one_talk() -> None:
    for n in range(2, 6):
        assert spoken(program(n), program(n)).version == n
        assert spoken(program(n - 1), program(n)).version == n - 1
        assert spoken(program(n), program(n - 1)).version == n - 1


def test_n_minus_two_is_told_to_update() -> None:
    with pytest.raises(NoCommonVersion, match=r"the peer must be updated"):
        spoken(program(2), program(4))
    with pytest.raises(NoCommonVersion, match=r"this program must be updated"):
        spoken(program(4), program(2))


def test_who_does_not_know_the_question_is_of_the_first_version() -> None:
    assert spoken(None, program(2)).version == 1
    with pytest.raises(NoCommonVersion):
        spoken(None, program(3))


def test_later_features_and_later_programs_are_no_error() -> None:
    later = Speech(VERSION, VERSION + 1, (*OURS.features, "dreams"))
    assert spoken(later, OURS) == Agreed(VERSION, frozenset(OURS.features))
    assert (OURS.oldest, OURS.newest) == (OLDEST, VERSION)


class Watch:
    """A clock that is ahead of the network's, and what it heard."""

    def __init__(self, ahead: float) -> None:
        self.ahead = ahead
        self.said: list[tuple[bytes, int]] = []

    def now(self) -> float:
        return 1000.0 + self.ahead

    def heard(self, peer: Address, at: int) -> None:
        self.said.append((peer, at))


def test_each_side_hears_what_time_it_is_on_the_other() -> None:
    async def main() -> None:
        network = MemoryNetwork()
        one, other = network.transport(key("one")), network.transport(key("other"))
        mine, theirs = Watch(0), Watch(77.9)
        serve_speech(other, clock=theirs)
        link = await one.dial(await other.listen("/ip4/10.0.0.1/tcp/4101"))
        assert await agreed_with(link, clock=mine) == Agreed(VERSION, frozenset(FEATURES))
        assert (mine.said, theirs.said) == ([(key("other").address, 1077)], [(key("one").address, 1000)])
        assert await agreed_with(link) == Agreed(VERSION, frozenset(FEATURES)), "one of before does not say"
        assert len(theirs.said) == 1
        serve_speech(other)
        await agreed_with(link, clock=mine)
        assert len(mine.said) == 1

    run_virtual(main())


@pytest.mark.parametrize("said", ["at:", "at:-5", "at:1e9", "at:\u0663", "at: 5"])
def test_what_is_no_time_is_none(said: str) -> None:
    assert time_of(Speech(1, 1, (said,))) is None


def test_the_time_takes_no_other_feature_s_place() -> None:
    full = Speech(1, 1, tuple(f"f{n}" for n in range(MOST_FEATURES)))
    assert dated(full, 5.5) is full
    assert time_of(dated(OURS, 5.5)) == 5


def test_garbage_is_no_answer() -> None:
    async def main() -> None:
        network = MemoryNetwork()
        one, other = network.transport(key("one")), network.transport(key("other"))

        async def lie(stream: Stream) -> None:
            MessageStream(stream, msgspec.msgpack.Decoder(object)).send(["speech", 5, -1])

        other.handle(SPEECH, lie)
        link = await one.dial(await other.listen("/ip4/10.0.0.1/tcp/4101"))
        with pytest.raises(BadMessage, match="not understood"):
            await agreed_with(link)

    run_virtual(main())
