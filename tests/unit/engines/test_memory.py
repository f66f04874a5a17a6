"""The in-process engine on a virtual clock: tokens take their time, cancels and stops cut it short."""

import asyncio

import pytest

from lading_net.clock import run_virtual
from lading_node.engines.errors import EngineError
from lading_node.engines.memory import MemoryEngine
from lading_node.engines.port import EngineSpec, Event, Failed, Finished, Generate, Run, Score, Scored
from lading_protocol.messages import ChatRequest, Message, Sampler

REQUEST = ChatRequest((Message("user", "hi"),), 20, Sampler(bytes(32), 0.0))


async def started(seed: str = "toy", delay: float = 0.5) -> MemoryEngine:
    engine = MemoryEngine(EngineSpec("memory", seed=seed), token_delay=delay)
    await engine.start()
    return engine


async def events(engine: MemoryEngine, id: str = "a") -> list[tuple[float, Event]]:
    now = asyncio.get_running_loop().time
    return [(now(), event) async for event in engine.generate(Generate(id, REQUEST))]


def test_each_token_takes_its_delay() -> None:
    async def main() -> None:
        seen = await events(await started())
        times = [at for at, event in seen if isinstance(event, Run)]
        assert times == pytest.approx([0.5 * (i + 1) for i in range(len(times))])
        assert isinstance(seen[-1][1], Finished)

    run_virtual(main())


def test_cancel_and_stop_do_not_wait_for_the_next_token() -> None:
    async def main() -> None:
        engine = await started(delay=100.0)
        loop = asyncio.get_running_loop()
        loop.call_later(150, engine.cancel, "a")
        (*_, (at, last)) = await events(engine)
        assert (at, last) == (150, Finished("a", "cancelled", 1))
        task = asyncio.create_task(events(engine, "b"))
        await asyncio.sleep(10)
        await engine.stop()
        (*_, (at, last)) = await task
        assert at == 160
        assert isinstance(last, Failed)
        assert last.code == "engine_died"

    run_virtual(main())


def test_other_weights_are_another_model() -> None:
    """How a simulation makes a host that swapped the model, and an auditor that sees it."""

    async def main() -> None:
        cheat, true = await started("cheap", 0.0), await started(delay=0.0)
        ids = tuple(i for _, event in await events(cheat) if isinstance(event, Run) for i in event.ids)
        scored = await true.score(Score("s", REQUEST, ids))
        assert isinstance(scored, Scored)
        assert max(scored.margins) > 1

    run_virtual(main())


def test_it_is_for_toys_only() -> None:
    with pytest.raises(EngineError):
        MemoryEngine(EngineSpec("onnx"))


def test_tokens_that_the_agent_would_not_give_cannot_be_resumed_from() -> None:
    """A payer that makes up earlier tokens would get the prompt for nothing."""

    async def main() -> None:
        engine = await started(delay=0.0)
        ids = tuple(i for _, event in await events(engine) if isinstance(event, Run) for i in event.ids)
        for cut in range(1, len(ids)):
            honest = [event async for event in engine.generate(Generate(f"h{cut}", REQUEST, ids[:cut]))]
            assert isinstance(honest[-1], Finished)
            forged = (*ids[: cut - 1], (ids[cut - 1] + 1) % 200)
            answer = [event async for event in engine.generate(Generate(f"f{cut}", REQUEST, forged))]
            assert len(answer) == 1
            assert isinstance(answer[0], Failed)
            assert answer[0].code == "invalid_request"

    run_virtual(main())


def test_a_token_outside_the_vocabulary_is_infinitely_far_off() -> None:
    """It is no reason to give up on the re-run: then nobody could convict a host that sends one."""

    async def main() -> None:
        engine = await started(delay=0.0)
        ids = tuple(i for _, event in await events(engine) if isinstance(event, Run) for i in event.ids)
        scored = await engine.score(Score("s", REQUEST, (*ids[:3], 2**31, *ids[4:]), 2))
        assert isinstance(scored, Scored)
        assert scored.margins[:3] == (0.0, float("inf"), 0.0)
        before = await engine.score(Score("s", REQUEST, (2**31, *ids[1:]), 1))
        assert isinstance(before, Failed)

    run_virtual(main())
