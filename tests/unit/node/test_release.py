"""Which pointers a host takes: whatever is said to it, in any order, it only goes forward and never to a yanked one."""

from hypothesis import given
from hypothesis import strategies as st

from lading_node.core.release import Line, Registration, begin, pointed, refusal, taken_back
from lading_protocol.ids import Address, AgentId, Digest, TermsId
from lading_protocol.release import ReleasePointer, Yank

MINE, FOREIGN = Address(b"m" * 20), Address(b"f" * 20)
OF = Digest(b"l" * 32)
AGENTS = [AgentId(bytes([number]) * 32) for number in range(6)]
# The last two belong to somebody else, and to nobody.
CHAIN = {agent: Registration(MINE, 100 + at) for at, agent in enumerate(AGENTS[:4])} | {
    AGENTS[4]: Registration(FOREIGN, 1)
}
START = begin(MINE, OF, AGENTS[1], TermsId(b"t" * 32))

pointers = st.builds(
    ReleasePointer,
    lineage=st.sampled_from([OF, OF, Digest(b"x" * 32)]),
    agent=st.sampled_from(AGENTS),
    sequence=st.integers(0, 8),
    issued=st.just(0),
    expires=st.just(0),
)
yanks = st.builds(Yank, agent=st.sampled_from(AGENTS[:4]), sequence=st.integers(0, 8), reason=st.just(bytes(32)))


def hear(line: Line, said: ReleasePointer | Yank) -> Line:
    if isinstance(said, Yank):
        return taken_back(line, said, "because")
    if refusal(line, said, CHAIN.get(AgentId(said.agent)), CHAIN[line.serving]):
        return line
    return pointed(line, said)


@given(st.lists(st.one_of(pointers, yanks), max_size=12))
def test_a_host_only_goes_forward(said: list[ReleasePointer | Yank]) -> None:
    line = START
    for one in said:
        after = hear(line, one)
        assert after.sequence >= line.sequence
        if isinstance(one, ReleasePointer) and after != line:
            assert after.sequence > line.sequence
            assert one.lineage == OF
            assert CHAIN[after.wanted].owner == MINE
        assert after.serving == line.serving
        assert after.wanted == after.serving or after.yanked(after.wanted) is None
        assert len({agent for agent, _ in after.yanks}) == len(after.yanks)
        line = after


@given(st.lists(st.one_of(pointers, yanks), max_size=8), st.data())
def test_what_was_taken_once_changes_nothing_the_second_time(
    said: list[ReleasePointer | Yank], data: st.DataObject
) -> None:
    """What was refused may be taken later: an old release needs a pointer before it to be believed."""
    line, taken = START, []
    for one in said:
        after = hear(line, one)
        taken += [one] if after != line else []
        line = after
    if taken:
        again = data.draw(st.sampled_from(taken))
        after = hear(line, again)
        assert (after.wanted, after.sequence, sorted(after.yanks)) == (line.wanted, line.sequence, sorted(line.yanks))


def test_the_yank_of_what_is_served_is_kept_longest() -> None:
    line = taken_back(START, Yank(START.serving, 1, bytes(32)), "It leaks.")
    for number in range(200):
        line = taken_back(line, Yank(number.to_bytes(32, "big"), 2, bytes(32)), "")
    assert line.yanked(START.serving) == "It leaks."
    assert len(line.yanks) == 64
