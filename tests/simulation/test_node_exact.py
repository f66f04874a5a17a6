"""What a node's auditor makes of a host that cuts off a little less than was asked, by the class that it promised."""

import asyncio

import msgspec
import pytest

from factories import chat_request, key
from lading_contracts.court import Verdict
from lading_net.clock import run_virtual
from lading_node.engines.memory import MemoryEngine
from lading_node.engines.port import EngineSpec, Event, Finished, Generate, Run, Started, Traced
from lading_node.node import Node
from lading_protocol.calibration import Calibration, Seen, spec_hash
from lading_protocol.ids import JobId, to_hex
from lading_protocol.messages import Case, ChatRequest, Finding, request_hash
from lading_protocol.receipts import Finish, Receipt
from lading_protocol.transcript import commitment, marks_of, sha256
from simulation.node_world import AGENT, MANIFEST, Sea

JOB = JobId(b"\x09" * 32)
NUMERIC = MANIFEST.runtimes[0].numeric
NOTHING = Seen(0.0, 0.0)
TABLE = Calibration(
    spec=to_hex(spec_hash(MANIFEST)),
    agent="toy 1",
    host=NUMERIC,
    auditor=NUMERIC,
    host_engine="memory 1",
    auditor_engine="memory 1",
    hardware="",
    date="2026-11-26",
    seed=0,
    jobs=100,
    tokens=5000,
    exact=True,
    margin=NOTHING,
    chunk=NOTHING,
    prompt=NOTHING,
    clipped=0.0,
    clipped_sd=1e-4,
    flips=0.0,
    chunk_mean=0.0,
    chunk_sd=1e-4,
)


async def answered(request: ChatRequest) -> list[Event]:
    engine = MemoryEngine(EngineSpec("memory", context=1024, seed="toy"))
    await engine.start()
    events = [event async for event in engine.generate(Generate("a", request, job=JOB))]
    await engine.stop()
    return events


def ids_of(events: list[Event]) -> tuple[int, ...]:
    return tuple(id for event in events if isinstance(event, Run) for id in event.ids)


def case_of(sea: Sea, request: ChatRequest, events: list[Event]) -> Case:
    """As its host would show it: the receipt names what was asked."""
    started, end, ids = events[0], events[-1], ids_of(events)
    assert isinstance(started, Started)
    assert isinstance(end, Finished)
    sketch = b"".join(event.sketch for event in events if isinstance(event, Traced | Run))
    marks = marks_of(JOB, 0, started.prompt_tokens - 1, sketch)
    receipt = Receipt(
        job=JOB,
        attempt=0,
        request=request_hash(request),
        agent=AGENT,
        terms=sea.terms,
        host=key("host").address,
        signer=key("payer").address,
        epoch=0,
        first=0,
        prompt_tokens=started.prompt_tokens,
        output_tokens=len(ids),
        prompt_hash=started.prompt_hash,
        commitment=commitment(JOB, ids, 0, marks),
        price_in=1,
        price_out=1,
        amount=1,
        finish=Finish[end.finish.upper()],
        issued_at=1,
    )
    signed = receipt.sign(sea.record.court_domain, key("host"))
    return Case(signed.pack(), request, ids, b"", b"".join(marks))


async def found(sea: Sea, case: Case, tables: tuple[Calibration, ...]) -> Finding:
    node = sea.node("juror")
    node = Node(msgspec.structs.replace(node.doors, tables=tables), node.plan)
    return await node.auditor.examine(case, None)


@pytest.mark.parametrize("taken", [0.9, 0.91])
def test_a_host_that_cuts_a_hundredth_less_is_guilty_only_where_it_promised_equal_numbers(taken: float) -> None:
    async def main() -> None:
        sea = await Sea.create()
        differ = 0
        for n in range(40):
            request = chat_request("Of foxes.", 60, top_p=0.9)
            request = msgspec.structs.replace(
                request, sampler=msgspec.structs.replace(request.sampler, seed=sha256(bytes([n])))
            )
            used = msgspec.structs.replace(request, sampler=msgspec.structs.replace(request.sampler, top_p=taken))
            asked, given = await asyncio.gather(answered(request), answered(used))
            case = case_of(sea, request, given)
            soft, hard = await found(sea, case, ()), await found(sea, case, (TABLE,))
            changed = ids_of(asked) != ids_of(given)
            assert hard.verdict == (Verdict.GUILTY if changed else Verdict.HONEST)
            differ += changed and soft.verdict == Verdict.HONEST
        assert (differ > 0) is (taken != 0.9)

    run_virtual(main())
