"""The embedding engine: one vector an input, the same bits in any company."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from integration.engines.asking import ask, collect
from integration.engines.conftest import Specs
from lading_node.engines.child import ChildEngine
from lading_node.engines.port import Embed, Embedded, Failed, Generate
from lading_protocol.messages import EmbedRequest

TEXTS = ("the fox", "Füchse tragen Laternen", "🦊", "a lantern over the river", "the fox")


def test_vectors_are_unit_length_and_independent_of_their_batch(specs: Specs, tmp_path: Path) -> None:
    async def main() -> None:
        engine = ChildEngine(specs["onnx"], tmp_path)
        ready = await engine.start()
        assert (ready.width, ready.vocab) == (24, 0)
        together = await engine.embed(Embed("all", EmbedRequest(TEXTS)))
        assert isinstance(together, Embedded)
        assert together.width == 24
        assert together.vectors[0] == together.vectors[4]
        assert len(set(together.vectors)) == 4
        for at, text in enumerate(TEXTS):
            alone = await engine.embed(Embed(f"one {at}", EmbedRequest((text,))))
            assert isinstance(alone, Embedded)
            assert (alone.vectors[0], alone.tokens[0]) == (together.vectors[at], together.tokens[at])
            assert np.linalg.norm(np.frombuffer(alone.vectors[0], "<f4")) == pytest.approx(1, abs=1e-6)
        many = await asyncio.gather(*(engine.embed(Embed(f"many {i}", EmbedRequest(TEXTS))) for i in range(4)))
        assert all(isinstance(got, Embedded) and got.vectors == together.vectors for got in many)
        await engine.stop()

    asyncio.run(main())


def test_too_long_inputs_and_chats_are_refused(specs: Specs, tmp_path: Path) -> None:
    async def main() -> None:
        engine = ChildEngine(specs["onnx"], tmp_path)
        await engine.start()
        long = await engine.embed(Embed("long", EmbedRequest(("ok", "fox " * 200))))
        assert isinstance(long, Failed)
        assert long.code == "context_exceeded"
        assert "64" in long.message
        chat = await collect(engine, Generate("chat", ask(5)))
        assert isinstance(chat.end, Failed)
        assert chat.end.code == "invalid_request"
        again = await engine.embed(Embed("long", EmbedRequest(("ok",))))
        assert isinstance(again, Embedded)
        await engine.stop()

    asyncio.run(main())
