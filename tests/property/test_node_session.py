"""A payer machine against a host machine under every interleaving, with cuts and refusals to pay at any moment."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from lading_node.core import commit
from lading_node.core.attempt import Phase
from lading_protocol import transcript
from lading_protocol.ids import JobId
from unit.node.world import World

PER_TOKEN_OUT = 3  # ceil of 2.3 wei: what one token can cost at most, prices as in World
MOVES = st.lists(
    st.tuples(
        st.sampled_from(["work", "work", "work", "host", "host", "payer", "payer", "write", "cut", "tick", "open"]),
        st.integers(0, 7),
    ),
    max_size=250,
)


def check(world: World) -> None:
    channel = world.channel
    assert channel.earned - channel.signed <= world.bound()
    assert channel.signed <= world.cumulative
    assert channel.earned == sum(play.session.count and _amount(play) for play in world.plays)


def _amount(play) -> int:
    from lading_node.core.attempt import amount

    return amount(play.session)


def move(world: World, name: str, pick: int) -> None:
    if name == "open":
        if len(world.plays) < 6:
            world.open(max_tokens=1 + pick * 23)
        return
    if name == "tick":
        world.pass_time(2.0 * pick)
        return
    if not world.plays:
        return
    play = world.plays[pick % len(world.plays)]
    if name == "work" and play.engine in ("asked", "on", "stopping"):
        play.work(run=1 + pick)
    elif name == "host" and play.to_host:
        play.arrive_at_host()
    elif name == "payer" and play.to_payer:
        play.arrive_at_payer()
    elif name == "write":
        play.write()
    elif name == "cut" and pick == 0:
        play.cut()


@settings(max_examples=120, deadline=None)
@given(MOVES, st.sampled_from([1, 8, 32, 64]), st.booleans())
def test_neither_side_is_ever_exposed_beyond_the_bound_and_both_agree(moves, credit: int, honest: bool) -> None:
    world = World(credit=credit)
    world.honest = honest
    for name, pick in moves:
        move(world, name, pick)
        check(world)
    broken = any(play.state.attempt is None and play.state.finish == 0 for play in world.plays)
    for play in world.plays:
        play.settle()
    for play in world.plays:
        play.settle()
        check(world)
    if honest:
        # Payments still on the way were delivered by settle(): what the payer promised is what the host holds,
        # except what was cut on the line.
        owed = sum(play.owed for play in world.plays)
        assert owed == world.cumulative
        assert world.channel.signed <= owed <= world.channel.earned
        if not broken:
            assert all(play.session.phase is Phase.OVER for play in world.plays)
            assert world.channel.earned == world.channel.signed == owed
            assert world.channel.written == 0
            assert all(len(p.delivered) == p.session.count for p in world.plays)
    else:
        assert world.channel.signed == 0


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 90), st.integers(1, 5), st.booleans())
def test_a_cut_at_any_token_costs_the_host_at_most_its_credit(at: int, run: int, payer_reads: bool) -> None:
    world = World(credit=64)
    play = world.open(max_tokens=90)
    play.arrive_at_host()
    while play.session.count < at and play.engine in ("asked", "on"):
        play.work(run)
        while payer_reads and play.to_payer:
            play.arrive_at_payer()
        while play.to_host:
            play.arrive_at_host()
        play.write()
    play.cut()
    # the voucher that the cut swallowed is in the payer's purse; the host collects it
    again = world.open(max_tokens=5)
    again.settle()
    lost = world.channel.earned - world.channel.signed
    assert lost == world.channel.written
    # what was never seen by the payer is lost to the host, and that is bounded by the credit
    assert lost <= 64 * PER_TOKEN_OUT + 5
    if payer_reads:
        assert lost <= run * PER_TOKEN_OUT + 5
    assert again.delivered == [1000, 1001, 1002, 1003, 1004]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(0, 2**32 - 1), max_size=300),
    st.lists(st.integers(0, 9), max_size=50),
    st.one_of(st.none(), st.integers(0, 40)),
    st.data(),
)
def test_the_running_commitment_is_the_protocols(
    ids: list[int], before: list[int], prompt: int | None, data: st.DataObject
) -> None:
    """`prompt` positions are sketched before the answer; None: nothing is."""
    job = JobId(b"\x05" * 32)
    first = len(before)
    state = commit.Commitment(job, first, transcript.roll(transcript.rolling_start(job), before) if before else b"")
    sketch = random.Random(len(ids)).randbytes(32 * ((prompt or 0) + len(ids))) if prompt is not None else b""
    opened, answer = sketch[: 32 * (prompt or 0)], sketch[32 * (prompt or 0) :]
    if prompt is not None:
        state = commit.sketched(state, transcript.prompt_mark(job, opened))
    at, signed, seen = 0, 0, ()
    while at < len(ids):
        size = data.draw(st.integers(1, 70))
        state = commit.add(state, tuple(ids[at : at + size]), answer[32 * at : 32 * (at + size)])
        at += size
        done = min(at, len(ids))
        assert state.count == done
        whole = opened + answer[: 32 * done]
        marks = transcript.marks_of(job, first, prompt, whole) if prompt is not None else []
        assert commit.root(state) == transcript.commitment(job, [*before, *ids[:done]], first, marks)
        if data.draw(st.booleans()):
            # a receipt: what it adds, put to what the payer kept of the one before, are all marks
            kept = seen[: 1 + signed // 32] if signed else ()
            seen, signed = (*kept, *commit.marks_since(state, signed)), done
            assert list(seen) == marks
    if not ids:
        assert commit.root(state) == transcript.commitment(job, before, first)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 400), min_size=1, max_size=12))
def test_a_lower_or_replayed_voucher_never_lowers(amounts: list[int]) -> None:
    world = World()
    play = world.open(max_tokens=100)
    play.arrive_at_host()
    play.work()
    from lading_node.core.events import Paid

    best = 0
    for cumulative in amounts:
        play.feed(Paid(world.voucher(cumulative)))
        play.write()
        best = max(best, cumulative)
        assert world.channel.signed == best
    assert play.session.phase is Phase.RUNNING
