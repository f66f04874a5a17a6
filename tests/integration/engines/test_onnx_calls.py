"""Calls of an ONNX agent: tensors and labels, the same answer to the byte, and graphs that an enemy drew."""

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from integration.engines import tiny_graphs
from integration.engines.asking import Answer, ask, collect
from integration.engines.tiny_graphs import LABELS, judging
from lading_node.engines.child import ChildEngine
from lading_node.engines.errors import EngineError
from lading_node.engines.load import load
from lading_node.engines.port import Embed, EngineSpec, Failed, Finished, Generate, Score, Scored
from lading_protocol.messages import CallRequest, EmbedRequest
from lading_protocol.work import text_bytes

INPUT = {"x": [[1, 2], [0.1, -4]], "bias": [0.5, 0]}


def call(tree: Any = INPUT, operation: str = "scale", most: int = 1000) -> CallRequest:
    return CallRequest(operation, json.dumps(tree).encode(), most)


def done(spec: EngineSpec, request: CallRequest) -> Answer:
    """In this process."""
    work = load(spec, Path()).begin(Generate("a", request))
    answer = Answer()
    while not work.done:
        work.step()
        for event in work.take():
            answer.add(event)  # type: ignore[arg-type]
    return answer


def test_a_call_gives_the_same_bytes_again_resumes_and_scores(tmp_path: Path) -> None:
    async def main() -> None:
        engine = ChildEngine(tiny_graphs.write(tmp_path, tiny_graphs.scaler()), tmp_path)
        await engine.start()
        answer = await collect(engine, Generate("a", call()))
        assert isinstance(answer.end, Finished)
        assert answer.text == '{"y":[[3.5,6.0],[0.8,-12.0]]}'
        assert text_bytes(answer.ids).decode() == answer.text
        for cut in (1, len(answer.ids) - 1):
            rest = await collect(engine, Generate(f"cut {cut}", call(), tuple(answer.ids[:cut])))
            assert answer.ids[:cut] + rest.ids == answer.ids
        scored = await engine.score(Score("s", call(), tuple(answer.ids)))
        assert isinstance(scored, Scored)
        assert (set(scored.margins), scored.finish, scored.ended) == ({0.0}, "stop", len(answer.ids))
        short = await collect(engine, Generate("short", call(most=3)))
        assert isinstance(short.end, Finished)
        assert (short.end.finish, short.text) == ("length", answer.text[:9])
        for order in (Generate("chat", ask(5)), Generate("other", call(operation="other"))):
            refused = await collect(engine, order)
            assert isinstance(refused.end, Failed)
            assert refused.end.code == "invalid_request"
        embedded = await engine.embed(Embed("e", EmbedRequest(("a",))))
        assert isinstance(embedded, Failed)
        await engine.stop()

    asyncio.run(main())


def test_packed_tensors_are_answered_packed(tmp_path: Path) -> None:
    spec = tiny_graphs.write(tmp_path, tiny_graphs.scaler())
    bias = {"dtype": "float32", "shape": [2], "data": "AAAAPwAAAAA="}
    answer = done(spec, call(INPUT | {"bias": bias}))
    found = json.loads(answer.text)["y"]
    assert (found["dtype"], found["shape"]) == ("float32", [2, 2])


def test_a_text_gets_its_label(tmp_path: Path) -> None:
    spec = tiny_graphs.write(tmp_path, tiny_graphs.classifier(), judging(), words=True)
    answer = json.loads(done(spec, call({"text": "The fox carries a lantern."}, "judge")).text)
    assert list(answer["scores"]) == sorted(LABELS)
    assert answer["label"] == max(answer["scores"], key=answer["scores"].__getitem__)
    assert sum(answer["scores"].values()) == pytest.approx(1, abs=1e-5)
    assert np.ptp(list(answer["scores"].values())) > 0.01
    for tree in ({"text": ""}, {"text": 1}, {}, {"text": "a", "more": 1}):
        refused = done(spec, call(tree, "judge")).end
        assert isinstance(refused, Failed)
        assert refused.code == "invalid_request"


def test_input_that_the_graph_does_not_take_is_refused(tmp_path: Path) -> None:
    spec = tiny_graphs.write(tmp_path, tiny_graphs.scaler())
    for tree in ([], {"x": [[1, 2]]}, INPUT | {"x": [[1, 2, 3]]}, INPUT | {"bias": "a"}):
        refused = done(spec, call(tree)).end
        assert isinstance(refused, Failed)
        assert refused.code == "invalid_request"
    limited = msgspec.structs.replace(spec, operations=(msgspec.structs.replace(spec.operations[0], max_input=10),))
    refused = done(limited, call()).end
    assert isinstance(refused, Failed)
    assert "takes 10" in refused.message


def packages(folder: Path) -> dict[str, EngineSpec]:
    made = {
        "evil.ops": (tiny_graphs.custom(), ()),
        "does not load": (tiny_graphs.outside("../../../etc/passwd"), ()),
        "does not load:": (tiny_graphs.outside("/etc/passwd"), ()),
        "does not load: ": (tiny_graphs.outside("*/_ORT_MEM_ADDR_/*"), ()),
        "takes text": (tiny_graphs.scaler(), (judging(),)),
        "stands twice": (tiny_graphs.classifier(), (judging(["a", "a", "b"]),)),
        "list its labels": (tiny_graphs.classifier(), (msgspec.structs.replace(judging(), output={}),)),
        "does not chat": (tiny_graphs.scaler(), (judging(), msgspec.structs.replace(judging(), name="chat"))),
    }
    specs = {}
    for i, (words, (model, operations)) in enumerate(made.items()):
        (folder / str(i)).mkdir()
        specs[words] = tiny_graphs.write(folder / str(i), model, *operations, words=bool(operations))
    return specs


def test_packages_that_do_not_load_say_why(tmp_path: Path) -> None:
    for words, spec in packages(tmp_path).items():
        with pytest.raises(EngineError) as caught:
            load(spec, tmp_path)
        assert caught.value.failure == "invalid_package", words
        assert words.strip(": ") in caught.value.message
        assert "\n" not in caught.value.message


def test_a_classifier_with_too_many_numbers_is_the_agents_fault(tmp_path: Path) -> None:
    spec = tiny_graphs.write(tmp_path, tiny_graphs.classifier(7), judging(), words=True)
    failed = done(spec, call({"text": "a"}, "judge")).end
    assert isinstance(failed, Failed)
    assert failed.code == "agent_error"
    assert "7 numbers for 3 labels" in failed.message


def test_a_graph_that_asks_for_64_gib_or_never_ends_is_stopped(tmp_path: Path) -> None:
    async def end(name: str, model: bytes) -> tuple[Failed, bool]:
        (tmp_path / name).mkdir()
        spec = tiny_graphs.write(tmp_path / name, model)
        engine = ChildEngine(msgspec.structs.replace(spec, memory=4 << 30), tmp_path, stall=0.8)
        await engine.start()
        answer = await collect(engine, Generate("a", call({"x": [1]})))
        alive = engine.health().alive
        await engine.stop()
        assert isinstance(answer.end, Failed)
        assert "\n" not in answer.end.message
        return answer.end, alive

    async def main() -> None:
        failed, alive = await end("greedy", tiny_graphs.greedy())
        assert (failed.code, alive) == ("resource_exhausted", True)
        failed, alive = await end("endless", tiny_graphs.endless())
        assert (failed.code, alive) == ("timeout", False)

    asyncio.run(main())
