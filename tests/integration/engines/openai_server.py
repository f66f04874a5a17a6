"""A small OpenAI-compatible server around the toy model, and servers that an enemy wrote: bytes on a socket."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse

from lading_node.engines.memory import MemoryEngine
from lading_node.engines.port import Embed, Embedded, EngineSpec, Finished, Generate, Run
from lading_protocol.messages import ChatRequest, EmbedRequest, Message, Sampler

NAME = "toy-7b"
Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Toy:
    """`left` counts the streams that a client left before their end."""

    def __init__(self, key: str = "", pause: float = 0.0) -> None:
        self.key = key
        self.asked: list[dict[str, Any]] = []
        self.left = 0
        self._engine = MemoryEngine(EngineSpec("memory", context=4096), token_delay=pause)

    def app(self) -> FastAPI:
        app = FastAPI()
        app.get("/v1/models")(self._models)
        app.post("/v1/embeddings")(self._embeddings)
        app.post("/v1/chat/completions")(self._chat)
        return app

    async def start(self) -> None:
        await self._engine.start()

    def _refuses(self, request: Request) -> JSONResponse | None:
        if self.key and request.headers.get("authorization") != f"Bearer {self.key}":
            return JSONResponse({"error": {"message": "who are you"}}, 401)
        return None

    async def _models(self, request: Request) -> JSONResponse:
        return self._refuses(request) or JSONResponse({"object": "list", "data": [{"id": NAME, "object": "model"}]})

    async def _embeddings(self, request: Request) -> JSONResponse:
        body = await request.json()
        assert body["model"] == NAME
        found = await self._engine.embed(Embed("embed", EmbedRequest(tuple(body["input"]))))
        assert isinstance(found, Embedded)
        vectors = [np.frombuffer(row, "<f4").tolist() for row in found.vectors]
        rows = [{"index": i, "object": "embedding", "embedding": vector} for i, vector in enumerate(vectors)]
        return JSONResponse({"model": NAME, "data": rows[::-1], "usage": {"prompt_tokens": 3, "total_tokens": 3}})

    async def _chat(self, request: Request) -> Any:
        body = await request.json()
        self.asked.append(body)
        return self._refuses(request) or StreamingResponse(self._stream(body), media_type="text/event-stream")

    async def _stream(self, body: dict[str, Any]) -> AsyncIterator[str]:
        messages = [Message(one["role"], one["content"]) for one in body["messages"]]
        begun = messages.pop().content if body.get("continue_final_message") else ""
        seed = body["seed"].to_bytes(32, "big")
        sampler = Sampler(seed, body["temperature"], body["top_p"], body.get("top_k", 0))
        order = Generate(str(len(self.asked)), ChatRequest(tuple(messages), body["max_tokens"], sampler))
        text, finish = "", None
        yield _event({"role": "assistant", "content": ""})
        try:
            async for event in self._engine.generate(order):
                if isinstance(event, Run):
                    text += event.text
                    fresh, begun = event.text[len(begun) :], begun[len(event.text) :]
                    yield ": still here\n\n" + _event({"content": fresh})
                elif isinstance(event, Finished):
                    finish = event.finish
        finally:
            self.left += finish is None
        yield _event({}, finish) + "data: [DONE]\n\n"


@asynccontextmanager
async def serving(toy: Toy) -> AsyncIterator[str]:
    """The URL of its API."""
    await toy.start()
    server = uvicorn.Server(uvicorn.Config(toy.app(), "127.0.0.1", 0, log_level="critical", lifespan="off", ws="none"))
    task = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - it has no event to wait for
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.should_exit = server.force_exit = True
        await task


@asynccontextmanager
async def enemy(answer: Answer) -> AsyncIterator[str]:
    """Lists the model as it should, and answers everything else by `answer`."""
    listed = json.dumps({"data": [{"id": NAME}]}).encode()

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"GET"):
                writer.write(
                    b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(listed) + listed
                )
            else:
                await answer(reader, writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(meet, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    finally:
        server.close()


def whole_answer(data: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(data) + data


def chunk(delta: dict[str, Any], finish: str | None = None, model: str = NAME) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": model, "choices": [choice]}


def _event(delta: dict[str, Any], finish: str | None = None) -> str:
    return f"data: {json.dumps(chunk(delta, finish))}\n\n"
