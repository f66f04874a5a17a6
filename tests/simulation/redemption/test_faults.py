"""Every step of a redemption, times everything that may befall the world just there, times a crash or none.

Then the world goes on, a second voucher comes, and the books must be right.
"""

import asyncio
import contextlib
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from lading_net.clock import run_virtual
from lading_node import settle
from simulation.redemption.dock import PAYERS, SECOND, Dock, Killed

Fault = Callable[[Dock], Awaitable[None]]
# When the first batch is beyond doubt but the second is not, and when both are.
SOONER, LATER = 1_000.0, 1_300.0
END = 1_400.0
# A disk in memory, where there is one: what a real one does in a crash is sqlite's business and tested by it.
SHM = Path("/dev/shm")
DISK = str(SHM) if SHM.is_dir() else None


async def nothing(dock: Dock) -> None:
    pass


async def short_outage(dock: Dock) -> None:
    await dock.outage(7.0)


async def long_outage(dock: Dock) -> None:
    """Longer than anybody waits for a transaction, and than a node looks away."""
    await dock.outage(500.0)


def reorganisation(depth: int, *, keep: bool, after: float = 0.0) -> Fault:
    """The newest `depth` blocks go (but for the deposits); their transactions come back (`keep`) or are forgotten."""

    async def happen(dock: Dock) -> None:
        def turn() -> None:
            head = dock.chain._blocks[-1].block.number
            dock.chain.rewind(max(dock.base, head - depth), keep=keep)
            if not keep:
                dock.chain.forget()

        asyncio.get_running_loop().call_later(after, turn) if after else turn()

    return happen


async def rival_first(dock: Dock) -> None:
    dock.rival_lands_the_rows()


async def rival_undone(dock: Dock) -> None:
    """Somebody else lands the rows, and a moment later no block has them."""
    dock.rival_lands_the_rows()
    await reorganisation(10, keep=False, after=6.0)(dock)


async def rival_undone_when_final(dock: Dock) -> None:
    """And nothing of our own tells that something was taken back."""
    dock.rival_lands_the_rows()
    await reorganisation(999, keep=False, after=LATER)(dock)


async def nonce_used(dock: Dock) -> None:
    dock.nonce_is_used_elsewhere()


async def forgotten(dock: Dock) -> None:
    dock.chain.forget()


async def disk_full(dock: Dock) -> None:
    ledger = dock.life.ledger
    ledger.full = True
    asyncio.get_running_loop().call_later(20.0, setattr, ledger, "full", False)


FAULTS: dict[str, Fault] = {
    "nothing": nothing,
    "short outage": short_outage,
    "long outage": long_outage,
    "shallow reorganisation": reorganisation(1, keep=True),
    "shallow reorganisation that forgets": reorganisation(1, keep=False),
    "deep reorganisation": reorganisation(99, keep=True),
    "deep reorganisation that forgets": reorganisation(99, keep=False),
    "reorganisation while it is watched": reorganisation(5, keep=True, after=30.0),
    "reorganisation while it is watched that forgets": reorganisation(5, keep=False, after=30.0),
    "reorganisation when the first was final": reorganisation(999, keep=True, after=SOONER),
    "reorganisation when the first was final that forgets": reorganisation(999, keep=False, after=SOONER),
    "reorganisation of what was final": reorganisation(999, keep=True, after=LATER),
    "reorganisation of what was final that forgets": reorganisation(999, keep=False, after=LATER),
    "rival first": rival_first,
    "rival undone": rival_undone,
    "rival undone, of what was final": rival_undone_when_final,
    "nonce used elsewhere": nonce_used,
    "forgotten": forgotten,
    "disk full": disk_full,
}
# How much later than usual the world is at rest.
LASTS = {long_outage: 600.0} | {fault: LATER for name, fault in FAULTS.items() if "was final" in name}


@pytest.fixture(autouse=True)
def slower_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half an hour of looking every five seconds would be most of these tests' time."""
    monkeypatch.setattr(settle, "LOOK_SECONDS", 50.0)


async def go_on(dock: Dock, until: float) -> None:
    """Life after life, until that time."""
    dock.life.go_on()
    while (left := until - asyncio.get_running_loop().time()) > 0:
        try:
            async with asyncio.timeout(left):
                await dock.killed.wait()
        except TimeoutError:
            return
        await dock.again()
        dock.life.go_on()


async def story(folder: Path, fault: Fault, at: int, crash: bool, first: Fault = nothing) -> list[str]:
    """What happens at step `at` of the first redemption, after a `first` thing before it; the names of its steps."""
    dock = await Dock.open(folder)
    await first(dock)

    async def hand(label: str) -> None:
        if len(dock.labels) == at + 1:
            await fault(dock)
            if crash:
                dock.crash()

    dock.hand = hand
    try:
        with contextlib.suppress(Killed):
            await dock.life.settler.settle()
            await dock.step("done")
        labels, dock.hand = dock.labels, None
        if dock.killed.is_set():
            await dock.again()
        await go_on(dock, 300.0)
        await dock.life.promise(dock.papers, PAYERS[0], SECOND)
        await go_on(dock, END + LASTS.get(fault, 0.0))
        await dock.life.check(dock.terms)
        assert not dock.chain.beside_another
        return labels
    finally:
        await dock.life.end()


def play(fault: Fault, at: int, crash: bool, first: Fault = nothing) -> list[str]:
    with tempfile.TemporaryDirectory(dir=DISK) as folder:
        return run_virtual(story(Path(folder), fault, at, crash, first), at, limit=5 * END)


STEPS = play(nothing, -1, False)


def test_the_steps_are_those_that_a_redemption_has() -> None:
    assert len(STEPS) >= 15
    for label in ("asking", "estimated", "signed", "writing", "noted", "broadcast", "waited"):
        assert label in STEPS, STEPS
    assert STEPS.index("noted") < STEPS.index("broadcast") < STEPS.index("included")


@pytest.mark.parametrize("crash", [False, True], ids=["", "and a crash"])
@pytest.mark.parametrize("name", FAULTS)
def test_no_voucher_is_lost_or_redeemed_twice(name: str, crash: bool) -> None:
    # What happens long after does not mind so much at which step it was that the long time began.
    for at in range(0, len(STEPS), 4 if LASTS.get(FAULTS[name], 0.0) >= LATER else 1):
        try:
            play(FAULTS[name], at, crash)
        except BaseException as error:
            error.add_note(f"{name} at step {at}, {STEPS[at]!r}{', and a crash' * crash}")
            raise


@pytest.mark.parametrize("then", ["shallow reorganisation that forgets", "deep reorganisation that forgets"])
def test_what_others_landed_is_taken_back_while_the_host_is_dead(then: str) -> None:
    """The disk says that all is redeemed, and nothing of the host's own contradicts it."""
    steps = play(nothing, -1, False, rival_first)
    assert "estimated" not in steps
    for at in range(len(steps)):
        play(FAULTS[then], at, True, rival_first)


async def open_dock(folder: Path, delay: float) -> Dock:
    dock = await Dock.open(folder)
    dock.chain.inclusion_delay = delay
    dock.life.go_on()
    return dock


def test_the_operator_reads_what_is_unknown_and_nothing_is_sent_meanwhile(tmp_path: Path) -> None:
    async def main() -> None:
        dock = await open_dock(tmp_path, 2_000.0)  # no block wants it
        try:
            await asyncio.sleep(400.0)
            (words,) = dock.life.settler.on_the_way
            assert "no block has it yet" in words
            assert "no block has it yet" in dock.life.settler.status
            await dock.life.promise(dock.papers, PAYERS[0], SECOND)
            await asyncio.sleep(400.0)
            assert len(dock.chain._pool) == 1
            await asyncio.sleep(1_300.0)
            (words, *_) = dock.life.settler.on_the_way
            assert "is in block" in words
            dock.chain.inclusion_delay = 4.0
            dock.chain._pool = {tx: replace(one, due=0.0) for tx, one in dock.chain._pool.items()}
            await asyncio.sleep(END)
            await dock.life.check(dock.terms)
        finally:
            dock.chain.inclusion_delay = 4.0
            await dock.life.end()

    run_virtual(main())


def test_the_operator_reads_that_the_chain_is_away(tmp_path: Path) -> None:
    async def main() -> None:
        dock = await open_dock(tmp_path, 4.0)
        try:
            await asyncio.sleep(1.0)
            dock.chain.down = True
            await asyncio.sleep(400.0)
            assert "signed" in dock.life.settler.status or "down" in dock.life.settler.status
            assert dock.life.watch.trouble
            dock.chain.down = False
            await asyncio.sleep(END)
            await dock.life.check(dock.terms)
        finally:
            await dock.life.end()

    run_virtual(main())


def test_a_block_that_came_and_went_between_two_looks_of_the_follower_strands_nothing(tmp_path: Path) -> None:
    """Long after the start somebody lands a voucher, we see it, and its block is gone before it is followed."""

    async def main() -> None:
        dock = await open_dock(tmp_path, 4.0)
        try:
            await asyncio.sleep(END)
            life, payer = dock.life, PAYERS[1]
            for task in life.tasks:
                task.cancel()
            await life.promise(dock.papers, payer, SECOND)
            head = dock.chain._blocks[-1].block.number
            dock.rival_lands(payer, SECOND)
            await life.settler.settle()
            assert life.channels.get(dock.papers.id(payer)).redeemed == SECOND
            dock.chain.rewind(head)
            life.go_on()
            await asyncio.sleep(END)
            await life.check(dock.terms)
        finally:
            await dock.life.end()

    run_virtual(main())


def test_a_new_voucher_right_after_a_reorganisation_does_not_go_beside_what_comes_again(tmp_path: Path) -> None:
    async def main() -> None:
        dock = await Dock.open(tmp_path)
        try:
            await dock.life.settler.settle()
            await dock.life.promise(dock.papers, PAYERS[0], SECOND)
            await dock.life.settler.settle()
            dock.chain.rewind(dock.chain._blocks[-1].block.number - 1, keep=True)
            await dock.life.promise(dock.papers, PAYERS[0], SECOND + 1)
            await dock.life.settler.settle()
            assert not dock.chain.beside_another
            await go_on(dock, END)
            await dock.life.check(dock.terms)
        finally:
            await dock.life.end()

    run_virtual(main())


def test_a_server_that_lags_behind_our_block_makes_nothing_due_again(tmp_path: Path) -> None:
    """It shows the vouchers as unredeemed, and the next one would refuse a batch of them."""

    async def main() -> None:
        dock = await Dock.open(tmp_path)
        try:
            dock.chain.first_answers = {}
            await dock.life.settler.settle()
            dock.chain.lags = True
            for payer in PAYERS:
                await dock.life.channels.refresh(dock.papers.id(payer))
                assert dock.life.channels.get(dock.papers.id(payer)).redeemed == 0
            tried = dock.chain.tried
            assert await dock.life.settler.settle("at once")
            assert dock.chain.tried == tried
            dock.chain.lags = False
            await go_on(dock, END)
            await dock.life.check(dock.terms)
        finally:
            dock.chain.first_answers, dock.chain.lags = None, False
            await dock.life.end()

    run_virtual(main())
