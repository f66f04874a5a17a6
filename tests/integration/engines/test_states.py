"""What an engine says of its model's states while it answers is what an auditor's prefill finds, and no cheat's."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import product
from pathlib import Path

import msgspec
import onnx
import pytest

from integration.engines import chat_agents, tiny_torch
from integration.engines.asking import collect
from lading_node.engines.child import ChildEngine
from lading_node.engines.errors import EngineError
from lading_node.engines.load import language_model
from lading_node.engines.port import AgentFile, EngineSpec, Finished, Generate, Score, Scored
from lading_protocol.messages import ChatRequest, Message, Sampler
from lading_protocol.sketches import chunk_means, errors

JOB = bytes(range(32))
ASK = ChatRequest((Message("user", "Tell me a story about a fox and a lantern."),), 90, Sampler(b"\x07" * 32))
VECTORS = Path(__file__).parents[2] / "vectors" / "models"


def with_model(spec: EngineSpec, path: Path) -> EngineSpec:
    file = AgentFile("model", str(path), hashlib.sha256(path.read_bytes()).digest())
    return msgspec.structs.replace(spec, files=(file, *(one for one in spec.files if one.role != "model")))


@asynccontextmanager
async def running(spec: EngineSpec, scratch: Path) -> AsyncIterator[ChildEngine]:
    engine = ChildEngine(spec, scratch)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()


async def told(engine: ChildEngine, emitted: tuple[int, ...] = ()) -> tuple[list[int], bytes, bytes]:
    """The ids, the sketch of the prompt, and that of the answer."""
    answer = await collect(engine, Generate("a", ASK, emitted, job=JOB))
    assert isinstance(answer.end, Finished), answer.end
    return answer.ids, answer.prompt_sketch, answer.sketch


async def found(engine: ChildEngine, ids: tuple[int, ...], first: int = 0) -> Scored:
    scored = await engine.score(Score("s", ASK, ids, first, JOB))
    assert isinstance(scored, Scored), scored
    return scored


def engines(tmp_path: Path) -> dict[str, EngineSpec]:
    return {"llm-onnx": chat_agents.onnx_chat(), "torch": chat_agents.torch_chat(tmp_path / "hf")}


def test_an_honest_host_is_as_close_as_arithmetic_lets_it_be(tmp_path: Path) -> None:
    """Also when it takes an answer over, and when the auditor has the other engine. No host is its own auditor."""
    tiny_torch.require_torch()

    async def main() -> None:
        async with AsyncExitStack() as stack:
            specs = list(engines(tmp_path).values())
            hosts = [await stack.enter_async_context(running(spec, tmp_path)) for spec in specs]
            auditors = [await stack.enter_async_context(running(spec, tmp_path)) for spec in specs]
            whole, _, _ = await told(hosts[0])
            for host, first in product(hosts, (0, 40)):
                ids, prompt, answer = await told(host, tuple(whole[:first]))
                assert whole == whole[:first] + ids
                assert len(answer) == 32 * len(ids)
                for auditor in auditors:
                    scored = await found(auditor, tuple(whole), first)
                    assert len(prompt) == 32 * (scored.prompt_tokens + first - 1)
                    apart = errors(scored.sketch, prompt + answer)
                    assert max(apart) < 0.002
                    assert max(scored.margins) < 0.001

    asyncio.run(main())


@pytest.mark.parametrize("cheat", ["chat-int4", "chat-small"])
def test_other_weights_have_other_states(tmp_path: Path, cheat: str) -> None:
    """int4 shows in every chunk and in the prompt, though its tokens differ little."""
    true = chat_agents.onnx_chat()
    false = with_model(true, VECTORS / cheat / "model.onnx")
    if cheat == "chat-small":
        shape = msgspec.json.decode((VECTORS / cheat / "shape.json").read_bytes(), type=type(true.llm))
        false = msgspec.structs.replace(false, llm=shape)

    async def main() -> None:
        async with running(false, tmp_path) as host, running(true, tmp_path) as auditor:
            ids, prompt, answer = await told(host)
            scored = await found(auditor, tuple(ids))
        apart = errors(scored.sketch, prompt + answer)
        assert min(chunk_means(apart)) > 0.02

    asyncio.run(main())


def test_a_graph_that_shows_no_states_still_answers(tmp_path: Path) -> None:
    graph = onnx.load(chat_agents.MODEL / "model.onnx")
    del graph.graph.output[-1]
    (tmp_path / "model.onnx").write_bytes(graph.SerializeToString())
    spec = with_model(chat_agents.onnx_chat(), tmp_path / "model.onnx")

    async def main() -> None:
        async with running(spec, tmp_path) as engine:
            ids, prompt, answer = await told(engine)
            assert (len(ids) > 40, prompt, answer) == (True, b"", b"")
            assert (await found(engine, tuple(ids))).sketch == b""

    asyncio.run(main())


def test_states_of_another_shape_are_a_fault_of_the_package(tmp_path: Path) -> None:
    graph = onnx.load(chat_agents.MODEL / "model.onnx")
    node = next(node for node in graph.graph.node if node.op_type == "MatMul" and "logits" in node.output)
    logits = next(output for output in graph.graph.output if output.name == "logits")
    del graph.graph.output[-1]
    (norm,) = (one for one in graph.graph.node if "hidden_states" in one.output)
    norm.output[list(norm.output).index("hidden_states")] = "inner"
    node.input[0] = "inner"
    graph.graph.node.append(onnx.helper.make_node("Identity", ["logits"], ["hidden_states"]))
    twin = onnx.ValueInfoProto()
    twin.CopyFrom(logits)
    twin.name = "hidden_states"
    graph.graph.output.append(twin)
    (tmp_path / "model.onnx").write_bytes(graph.SerializeToString())
    with pytest.raises(EngineError, match="hidden_states of shape") as caught:
        language_model(with_model(chat_agents.onnx_chat(), tmp_path / "model.onnx"), tmp_path)
    assert caught.value.failure == "invalid_package"
