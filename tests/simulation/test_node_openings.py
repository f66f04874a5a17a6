"""The audit and opening streams of a node against peers that lie, ask for what is not theirs, stall, or flood."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from factories import key
from lading_net.clock import run_virtual
from lading_net.errors import NetError
from lading_net.messages import MessageStream
from lading_node.core.casework import conclude, holds, rerun_chat
from lading_node.engines.port import Scored
from lading_protocol.audit import Verdict
from lading_protocol.eip712 import unpack
from lading_protocol.ids import JobId
from lading_protocol.messages import (
    AUDIT,
    MAX_FRAME,
    OPENING,
    Case,
    Check,
    Finding,
    FromAuditor,
    FromOpener,
    GetOpening,
    Refuse,
    Sealed,
    Sketch,
    Unopened,
)
from lading_protocol.receipts import Receipt
from lading_protocol.transcript import commitment, marks_of
from simulation.test_node_court import Trial, case_of
from unit.node.test_core import LIMITS, NET, case, receipt

AUDITOR = msgspec.msgpack.Decoder(FromAuditor)
OPENER = msgspec.msgpack.Decoder(FromOpener)
SIGNER = (NET.court_domain, key("host"))


async def opened(trial: Trial, who: str, job: bytes, attempt: int) -> Any:
    """What the host answers to `who`."""
    link = trial.link("host")
    if who:
        peer = trial.sea.network.transport(key(who))
        link = await peer.dial(trial.nodes["host"].endpoints[0], trial.nodes["host"].address)
    messages: MessageStream[Sketch | Refuse] = MessageStream(await link.open(OPENING), OPENER)
    messages.send(GetOpening(job, attempt))
    return await messages.recv()


def test_a_host_opens_to_whom_it_served_and_to_nobody_else(tmp_path: Path) -> None:
    async def main() -> None:
        trial = await Trial.begin(tmp_path, "toy")
        part = trial.gateway.ended[0].parts[0]
        job = unpack(Receipt, part.receipt).value.job
        assert isinstance(await opened(trial, "", job, 0), Sketch)
        for who, of, attempt in (("stranger", job, 0), ("", job, 1), ("", bytes(32), 0)):
            answer = await opened(trial, who, of, attempt)
            assert isinstance(answer, Refuse), (who, attempt)
            assert answer.code == "no_opening"
        await trial.end()

    run_virtual(main())


async def sealed(trial: Trial, what: Case) -> MessageStream[FromAuditor]:
    messages: MessageStream[FromAuditor] = MessageStream(await trial.link("juror1").open(AUDIT), AUDITOR)
    messages.send(Check(what))
    assert isinstance(await messages.recv(), Sealed)
    return messages


def test_an_auditor_outlives_whoever_asks_badly(tmp_path: Path) -> None:
    async def main() -> None:
        trial = await Trial.begin(tmp_path, "toy")
        what = case_of(trial.gateway.ended[0])
        size = len(await trial.opening())
        half = b"\0" * (MAX_FRAME // 2)
        for lies in (
            [Sketch(b"", 2**26)],
            [Sketch(b"x" * (size + 1))],
            [Sketch(b"x" * (size - 1), 2), Sketch(b"xx")],
            [Sketch(b"x" * 10, size - 10), Sketch(b"y" * 10, size - 10)],
            [Sketch(b"x" * 10, size - 10), Sketch(b"", size - 10)],
            [Sketch(half, 2**26)] * 8,
            [Check(what)],
        ):
            messages = await sealed(trial, what)
            for lie in lies:
                messages.send(lie)
            try:
                answer = await messages.recv()
            except NetError:
                answer = None
            assert answer is None or isinstance(answer, Refuse), (lies[0], answer)
        messages = MessageStream(await trial.link("juror1").open(AUDIT), AUDITOR)
        messages.send(Unopened("first"))
        assert isinstance(await messages.recv(), Refuse)
        await sealed(trial, what)  # and now silence: the turn of this peer ends by itself
        await asyncio.sleep(200)
        found = await trial.check(what, "juror1", await trial.opening())
        assert isinstance(found, Finding)
        assert (found.verdict, found.code, found.chunk) == (Verdict.HONEST, "ok", 0.0)
        await trial.end()

    run_virtual(main())


def test_the_checks_of_one_asker_come_one_after_the_other(tmp_path: Path) -> None:
    async def main() -> None:
        trial = await Trial.begin(tmp_path, "toy")
        what = case_of(trial.gateway.ended[0])
        first = await sealed(trial, what)
        waiting = [asyncio.ensure_future(sealed(trial, what))]
        await asyncio.sleep(1)
        assert not waiting[0].done()
        await first.close()
        await asyncio.sleep(0.01)
        waiting += [asyncio.ensure_future(sealed(trial, what)) for _ in range(2)]
        await asyncio.sleep(1)
        assert [one.done() for one in waiting] == [True, False, False]
        for one in waiting:
            await (await one).close()
        await trial.end()

    run_virtual(main())


@pytest.mark.parametrize("number", [b"\x00\x7e", b"\x00\x7c", b"\x00\xfc"])  # not a number, both infinities
def test_a_number_that_is_none_is_the_hosts_own_once_it_is_bound(number: bytes) -> None:
    claimed = receipt()
    positions = claimed.prompt_tokens + claimed.first - 1
    own = b"\x00\x3c" * (16 * (positions + claimed.output_tokens))
    theirs = own[:-2] + number
    job = JobId(claimed.job)
    marks = marks_of(job, claimed.first, positions, theirs)
    bound = msgspec.structs.replace(claimed, commitment=commitment(job, case().emitted, claimed.first, marks))
    shown = msgspec.structs.replace(case(), marks=b"".join(marks))
    assert holds(shown, bound, theirs)
    assert not holds(shown, bound, own)
    scored = Scored("x", bound.prompt_tokens, bound.prompt_hash, (0.0, 0.0, 0.0), "stop", 4, own)
    finding = conclude(bound.sign(*SIGNER), rerun_chat(scored, shown, bound, theirs), LIMITS)
    assert (finding.verdict, finding.code) == (Verdict.GUILTY, "sketch")
    unshown = conclude(bound.sign(*SIGNER), rerun_chat(scored, shown, bound, None), LIMITS)
    assert unshown.verdict == Verdict.HONEST
    bare = conclude(claimed.sign(*SIGNER), rerun_chat(scored, case(), claimed, None), LIMITS)
    assert (bare.verdict, bare.code) == (Verdict.GUILTY, "impossible")
