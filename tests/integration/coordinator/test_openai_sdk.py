"""The unmodified `openai` package against the gateway, over loopback: what a consumer's own program does."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import uvloop
from openai import AsyncOpenAI, OpenAI

from integration.coordinator.town import Town, town
from lading_protocol.ids import to_hex
from lading_protocol.messages import Refuse
from unit.coordinator.host import WORDS, Habits

MESSAGES: Any = [{"role": "user", "content": "tell me a story"}]
Story = Callable[[Town, Any], Awaitable[None]]


def play(folder: Path, story: Story, *, retries: int = 0) -> None:
    async def main() -> None:
        async with town(folder) as made:
            api_key = await made.session()
            async with AsyncOpenAI(base_url=f"{made.url}/v1", api_key=api_key, max_retries=retries) as client:
                await story(made, client)

    uvloop.run(main())


def text_of(count: int) -> str:
    return "".join(WORDS[(12 + i) % len(WORDS)] for i in range(count))


def test_chat_streamed_and_whole(tmp_path: Path) -> None:
    async def story(made: Town, client: Any) -> None:
        host = await made.host("one")
        raw = await client.chat.completions.with_raw_response.create(
            model="storyteller", messages=MESSAGES, max_tokens=9, temperature=0, seed=7, stop=["zzz"], user="me"
        )
        whole = raw.parse()
        assert raw.headers["x-lading-host"] == to_hex(host.key.address)
        assert int(raw.headers["x-lading-cost"]) > 0
        assert whole.choices[0].finish_reason == "length"
        assert whole.usage.total_tokens == 13
        stream = await client.chat.completions.create(
            model="storyteller", messages=MESSAGES, stream=True, stream_options={"include_usage": True}, max_tokens=9
        )
        chunks = [chunk async for chunk in stream]
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert text == whole.choices[0].message.content
        assert len(text.split()) == 9
        assert chunks[0].choices[0].delta.role == "assistant"
        assert chunks[-1].usage.completion_tokens == 9
        assert chunks[-2].choices[0].finish_reason == "length"
        assert chunks[-1].lading["cost_wei"] == raw.headers["x-lading-cost"]

    play(tmp_path, story)


def test_the_sdks_own_stream_helper(tmp_path: Path) -> None:
    async def story(made: Town, client: Any) -> None:
        await made.host("one")
        async with client.chat.completions.stream(model="storyteller", messages=MESSAGES) as stream:
            kinds = {event.type async for event in stream}
        assert "content.delta" in kinds
        final = await stream.get_final_completion()
        assert len(final.choices[0].message.content.split()) == 11

    play(tmp_path, story)


def test_embeddings(tmp_path: Path) -> None:
    async def story(made: Town, client: Any) -> None:
        await made.host("one")
        default = await client.embeddings.create(model="storyteller", input=["a b", "c"])
        plain = await client.embeddings.create(model="storyteller", input=["a b", "c"], encoding_format="float")
        packed = await client.embeddings.create(model="storyteller", input="a b", encoding_format="base64")
        assert [list(row.embedding) for row in default.data] == [row.embedding for row in plain.data]
        assert plain.data[0].embedding == [3.0, 1.0, 0.5, -1.25]
        assert packed.data[0].embedding == "AABAQAAAgD8AAAA/AACgvw=="
        assert plain.usage.prompt_tokens == 3

    play(tmp_path, story)


def test_models(tmp_path: Path) -> None:
    async def story(made: Town, client: Any) -> None:
        await made.host("one")
        models = [model async for model in client.models.list()]
        assert [model.id for model in models] == ["storyteller"]
        assert models[0].price["input_wei"] == "1000000"
        found = await client.models.retrieve("storyteller@1")
        assert found.agent == to_hex(made.agent)

    play(tmp_path, story)


def test_the_synchronous_client_from_many_threads(tmp_path: Path) -> None:
    async def story(made: Town, client: Any) -> None:
        await made.host("one")

        def ask() -> list[Any]:
            with OpenAI(base_url=str(client.base_url), api_key=client.api_key, max_retries=0) as mine:
                return [
                    mine.chat.completions.create(model="storyteller", messages=MESSAGES, max_tokens=i)
                    .choices[0]
                    .message.content
                    for i in range(1, 6)
                ]

        answers = await asyncio.gather(*(asyncio.to_thread(ask) for _ in range(4)))
        assert all(answer == answers[0] for answer in answers)
        assert [len(text.split()) for text in answers[0]] == [1, 2, 3, 4, 5]

    play(tmp_path, story)


ERRORS: list[tuple[dict[str, Any], type[openai.APIStatusError], str]] = [
    ({"model": "nope"}, openai.NotFoundError, "model_not_found"),
    ({"n": 99}, openai.BadRequestError, "invalid_value"),
    ({"temperature": 9}, openai.BadRequestError, "invalid_value"),
    ({"tools": [{"type": "web_search"}]}, openai.BadRequestError, "unsupported_parameter"),
]


def test_errors_arrive_as_the_sdks_own_types(tmp_path: Path) -> None:
    async def story(made: Town, client: Any) -> None:
        await made.host("one")
        for change, kind, code in ERRORS:
            with pytest.raises(kind) as caught:
                await client.chat.completions.create(**{"model": "storyteller", "messages": MESSAGES, **change})
            assert caught.value.code == code
        stranger = client.with_options(api_key="lk_nobody")
        with pytest.raises(openai.AuthenticationError) as refused:
            await stranger.chat.completions.create(model="storyteller", messages=MESSAGES)
        assert refused.value.code == "invalid_api_key"

    play(tmp_path, story)


def test_the_sdk_waits_as_long_as_it_is_told_and_asks_again(tmp_path: Path) -> None:
    async def story(made: Town, client: Any) -> None:
        host = await made.host("one", Habits(refuses=Refuse("unpaid", "You owe.")))
        asking = asyncio.create_task(client.chat.completions.create(model="storyteller", messages=MESSAGES))
        while b'code="no_host"' not in made.coordinator.metrics.text():  # noqa: ASYNC110 - it has no event to wait for
            await asyncio.sleep(0.01)
        refused = time.perf_counter()
        host.habits = Habits()
        assert (await asking).choices[0].finish_reason == "stop"
        assert 0.9 <= time.perf_counter() - refused < 10

    play(tmp_path, story, retries=1)


def test_an_answer_that_breaks_raises_while_streaming(tmp_path: Path) -> None:
    async def story(made: Town, client: Any) -> None:
        await made.host("one", Habits(fails_after=3))
        stream = await client.chat.completions.create(model="storyteller", messages=MESSAGES, stream=True)
        seen: list[str] = []

        async def read() -> None:
            async for chunk in stream:
                seen.append(chunk.choices[0].delta.content or "")

        with pytest.raises(openai.APIError) as caught:
            await read()
        assert len("".join(seen).split()) == 3
        assert caught.value.code == "job_lost"

    play(tmp_path, story)


def test_a_host_killed_mid_stream_is_not_seen(tmp_path: Path) -> None:
    async def story(made: Town, client: Any) -> None:
        await made.host("cheap", Habits(price_out=1, dies_after=20, pause=0.002, length=60))
        await made.host("dear", Habits(length=60))
        stream = await client.chat.completions.create(
            model="storyteller", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert text == text_of(59) if text.startswith(WORDS[4]) else len(text.split()) == 59
        assert chunks[-1].usage.completion_tokens == 60
        assert [part["tokens"] for part in chunks[-1].lading["parts"]] == [20, 40]

    play(tmp_path, story)


def test_leaving_early_stops_the_host(tmp_path: Path) -> None:
    async def story(made: Town, client: Any) -> None:
        host = await made.host("one", Habits(length=5000, pause=0.01))
        stream = await client.chat.completions.create(model="storyteller", messages=MESSAGES, stream=True)
        async for _ in stream:
            break
        await stream.close()
        await asyncio.wait_for(host.stopped.wait(), 2)

    play(tmp_path, story)


def test_a_drain_lets_a_running_answer_end(tmp_path: Path) -> None:
    async def story(made: Town, client: Any) -> None:
        await made.host("one", Habits(length=40, pause=0.01))
        stream = await client.chat.completions.create(model="storyteller", messages=MESSAGES, stream=True)
        text = ""
        async for chunk in stream:
            text += chunk.choices[0].delta.content or ""
            made.coordinator.stop.set()
        assert len(text.split()) == 39
        with pytest.raises(openai.APIConnectionError):
            await client.models.list()

    play(tmp_path, story)


def test_tokens_are_not_held_back_by_the_socket(tmp_path: Path) -> None:
    """Nagle's algorithm against delayed acknowledgements would cost 40 ms a token."""

    async def story(made: Town, client: Any) -> None:
        await made.host("one", Habits(length=50, pause=0.002))
        begun = time.perf_counter()
        stream = await client.chat.completions.create(model="storyteller", messages=MESSAGES, stream=True)
        assert len([chunk async for chunk in stream]) > 20
        assert time.perf_counter() - begun < 1.2

    play(tmp_path, story)


def test_the_control_plane_shares_the_port(tmp_path: Path) -> None:
    async def story(made: Town, client: Any) -> None:
        await made.host("one")
        await client.chat.completions.create(model="storyteller", messages=MESSAGES)
        async with httpx.AsyncClient(base_url=made.url) as http:
            assert (await http.get("/healthz")).json() == {"status": "ok"}
            assert (await http.get("/readyz")).json()["ready"] is True
            page = await http.get("/")
            assert "storyteller@1" in page.text
            assert "http" not in page.text.replace(made.url, "").replace("http-equiv", "")
            metrics = (await http.get("/metrics")).text
            assert 'lading_jobs_total{code="ok",operation="chat"} 1.0' in metrics
            network = (await http.get("/lading/v1/network")).json()
            assert network["coordinator"]["http"] == made.url
            missing = await http.get("/else")
            assert (missing.status_code, missing.json()["error"]["code"]) == (404, "unknown_path")
            assert (await http.delete("/healthz")).json()["error"]["code"] == "method_not_allowed"
            assert (await http.get("/v1/chat/completions")).status_code == 405
            assert (await http.get("/v1/else")).json()["error"]["code"] == "unknown_path"
            assert (await http.get("/lading/v1/jobs/0x12")).status_code == 400
            assert (await http.head("/")).status_code in (200, 405)

    play(tmp_path, story)
