"""Gateways that lie, break off, drip or talk nonsense: what they said is kept, and the next one is asked for the rest.

Each is a socket on loopback that speaks the bytes that it is told to.
"""

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import httpx
import pytest
from openai import APITimeoutError, AsyncOpenAI

from lading.answers import Bill, Delta, Notice
from lading.client import Client
from lading.core.continued import Told, line
from lading.core.options import Options
from lading.errors import GatewayError
from lading.openai import async_http_client
from lading.routes import passage

WORDS = ["The ", "fox ", "went ", "over ", "the ", "hill."]
HEAD = (
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nx-lading-ids: 2\r\nx-lading-agent: 0x" + "aa" * 32 + "\r\n"
    "x-lading-max-tokens: 6\r\nx-lading-created: 5\r\nx-lading-job: 0x" + "bb" * 32 + "\r\nconnection: close\r\n\r\n"
).encode()

Write = Callable[[bytes], Awaitable[None]]
Mode = Callable[[dict[str, Any], Write], Awaitable[None]]


def event(tree: Any) -> bytes:
    return b"data: " + json.dumps(tree).encode() + b"\n\n"


def word(at: int) -> bytes:
    choice = {"index": 0, "delta": {"content": WORDS[at]}, "finish_reason": None}
    return line(Told(0, at, (at,), 1, prompt=3, cost=str(1000 + at))) + event({"choices": [choice]})


def end(body: dict[str, Any]) -> bytes:
    there = body.get("lading", {})
    mine = 6 - len(there.get("choices", [{}])[0].get("ids", []))
    cost = int(there.get("paid", "0")) + 1000 * mine
    facts = {"cost_wei": str(cost), "job": "0x" + "bb" * 32, "hosts": []}
    last = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "lading": facts}
    usage = {"usage": {"prompt_tokens": 3, "completion_tokens": 6}}
    return line(Told(finish="stop", events=2, cost=str(1000 * mine))) + event(last | usage) + b"data: [DONE]\n\n"


def first_of(body: dict[str, Any]) -> int:
    return len(body.get("lading", {}).get("choices", [{}])[0].get("ids", []))


async def honest(body: dict[str, Any], write: Write) -> None:
    await write(HEAD)
    for at in range(first_of(body), 6):
        await write(word(at))
    await write(end(body))


def says(*after: bytes, pause: float = 0.0, again: int = 1) -> Mode:
    """Three words, and then something else."""

    async def mode(body: dict[str, Any], write: Write) -> None:
        await write(HEAD)
        for at in range(first_of(body), 3):
            await write(word(at))
        for _ in range(again):
            for one in after:
                await write(one)
                await asyncio.sleep(pause)

    return mode


async def another_program(body: dict[str, Any], write: Write) -> None:
    await write(b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close\r\n\r\n<html>hello</html>")


async def refuses(body: dict[str, Any], write: Write) -> None:
    told = json.dumps({"error": {"message": "Not with this key.", "code": "invalid_api_key"}}).encode()
    await write(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b" % (len(told), told))


async def silent(body: dict[str, Any], write: Write) -> None:
    await write(HEAD + word(0))
    await asyncio.sleep(60)


@contextlib.asynccontextmanager
async def gates(*modes: Mode) -> AsyncIterator[tuple[list[str], list[dict[str, Any]]]]:
    """One socket for each, and all that they were asked."""
    asked: list[dict[str, Any]] = []
    tasks: list[asyncio.Task[None] | None] = []

    def serve(mode: Mode) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            tasks.append(asyncio.current_task())
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()

            async def write(data: bytes) -> None:
                writer.write(data)
                await writer.drain()

            try:
                if head.startswith("get "):  # whether it lives
                    await asyncio.sleep(60 if mode in (silent, stands_still) else 0)
                    await write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                else:
                    size = int(head.split("content-length: ")[1].split("\r\n")[0])
                    asked.append(json.loads(await reader.readexactly(size)))
                    form = re.search(r"x-lading-ids: (\S+)", head)
                    await mode(asked[-1] | {"x-lading-ids": form and form[1]}, write)
            except ConnectionError:
                pass
            finally:
                writer.close()

        return handle

    servers = [await asyncio.start_server(serve(mode), "127.0.0.1", 0) for mode in modes]
    try:
        yield [f"http://127.0.0.1:{one.sockets[0].getsockname()[1]}" for one in servers], asked
    finally:
        for server in servers:
            server.close()
        for task in filter(None, tasks):
            task.cancel()
        await asyncio.gather(*filter(None, tasks), return_exceptions=True)


async def ask(urls: Sequence[str]) -> tuple[str, Bill, int]:
    async with Client.through(urls[0], "a", [(url, "b") for url in urls[1:]]) as client:
        text, notices, bill = "", 0, None
        async for piece in client.chat("storyteller", "Tell me a story.", Options(seed=7)):
            match piece:
                case Delta(more):
                    text += more
                case Notice():
                    notices += 1
                case Bill():
                    bill = piece
        assert bill is not None
        return text, bill, notices


BAD: dict[str, Mode] = {
    "breaks off": says(),
    "breaks off within an event": says(word(3)[:-5]),
    "sends a token again": says(word(2)),
    "leaves one out": says(word(4)),
    "talks nonsense": says(b"\x00\xff\xfe nonsense\n\n"),
    "sends text without tokens": says(event({"choices": [{"delta": {"content": "and a lie"}}]})),
    "says that it is done and sends nothing": says(line(Told(finish="stop", events=2))),
    "sends another choice": says(line(Told(4, 0, (1,), 1)) + event({})),
    "says it lost the job": says(event({"error": {"message": "Nobody goes on.", "code": "job_lost"}})),
    "drips what is no answer": says(b":\n\n", pause=0.05, again=100),
    "never says anything more": silent,
}


@pytest.mark.parametrize("bad", BAD)
def test_what_was_said_is_kept_and_another_goes_on(bad: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passage, "QUIET_SECONDS", 0.1)
    monkeypatch.setattr(passage, "PROBE_SECONDS", 0.1)
    monkeypatch.setattr(passage, "STUCK_SECONDS", 0.3)

    async def story() -> None:
        async with gates(BAD[bad], honest) as (urls, asked):
            text, bill, notices = await ask(urls)
        assert text == "".join(WORDS)
        assert notices == 1
        there = first_of(asked[-1])
        assert there == (1 if bad.startswith("never") else 3)
        assert bill.cost == 1000 + there - 1 + 1000 * (6 - there), "what each of them said, once"

    asyncio.run(story())


def test_all_of_them_are_tried_and_none_that_answers_anything_else_is_believed() -> None:
    async def story() -> None:
        async with gates(BAD["breaks off"], another_program, refuses, BAD["leaves one out"], honest) as (urls, asked):
            text, bill, notices = await ask(urls)
        assert text == "".join(WORDS)
        assert [first_of(one) for one in asked] == [0, 3, 3, 3, 3]
        assert notices == 4
        assert bill.output_tokens == 6

    asyncio.run(story())


def test_among_liars_alone_an_answer_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passage, "RECONNECT_SECONDS", 0.3)

    async def again_and_again(body: dict[str, Any], write: Write) -> None:
        await write(HEAD + word(0))

    async def story() -> None:
        async with gates(again_and_again, another_program) as (urls, _):
            with pytest.raises(GatewayError, match="is not a Lading coordinator's"):
                await asyncio.wait_for(ask(urls), 5)

    asyncio.run(story())


def test_a_gateway_that_is_alone_and_lives_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passage, "QUIET_SECONDS", 0.05)

    async def slow(body: dict[str, Any], write: Write) -> None:
        await asyncio.sleep(0.3)
        await write(HEAD)
        for at in range(6):
            await asyncio.sleep(0.12)
            await write(word(at))
        await write(end(body))

    async def story() -> None:
        async with gates(slow) as (urls, _):
            text, _, notices = await ask(urls)
        assert (text, notices) == ("".join(WORDS), 0)

    asyncio.run(story())


@pytest.mark.parametrize(("mode", "code"), [(refuses, "invalid_api_key"), (another_program, "gateway")])
def test_where_nothing_began_a_refusal_is_final(mode: Mode, code: str) -> None:
    async def story() -> None:
        async with gates(mode) as (urls, asked):
            with pytest.raises(GatewayError) as caught:
                await ask(urls)
        assert caught.value.code == code
        assert len(asked) == 1

    asyncio.run(story())


def replies(status: str, tree: Any, *, half: bool = False) -> Mode:
    async def mode(body: dict[str, Any], write: Write) -> None:
        told = json.dumps(tree).encode()
        head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(told)}\r\n\r\n".encode()
        await write(head + told[: len(told) // 2 if half else None])

    return mode


async def stands_still(body: dict[str, Any], write: Write) -> None:
    await asyncio.sleep(60)


async def hangs_up(body: dict[str, Any], write: Write) -> None: ...


ROWS: Any = {
    "data": [{"embedding": [0.5, -1.0], "index": 0}],
    "usage": {"prompt_tokens": 1, "total_tokens": 1},
    "lading": {"cost_wei": "7", "job": "0x" + "bb" * 32, "hosts": []},
}
EMBEDS = replies("200 OK", ROWS)
LOST: Any = {"error": {"message": "Nobody goes on.", "code": "job_lost"}}
FULL: Any = {"error": {"message": "All hosts are busy.", "code": "overloaded"}}
NO_VECTORS: dict[str, Mode] = {
    "hangs up": hangs_up,
    "sends half of it": replies("200 OK", ROWS, half=True),
    "lost the job": replies("502 Bad Gateway", LOST),
    "is full": replies("503 Service Unavailable", FULL),
    "is another program": another_program,
    "says nothing": stands_still,
}


@pytest.mark.parametrize("bad", NO_VECTORS)
def test_an_embedding_that_did_not_come_is_asked_for_elsewhere(bad: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passage, "QUIET_SECONDS", 0.4)
    monkeypatch.setattr(passage, "PROBE_SECONDS", 0.4)

    async def story() -> None:
        async with gates(NO_VECTORS[bad], EMBEDS) as (urls, asked):
            async with Client.through(urls[0], "a", [(urls[1], "b")]) as client:
                found = await client.embed("storyteller", ["fox"])
            assert (found.vectors, found.bill.cost) == (((0.5, -1.0),), 7)
            through = async_http_client(urls[0], "a", [(urls[1], "b")])
            async with AsyncOpenAI(
                base_url=urls[0] + "/v1", api_key="a", http_client=through, max_retries=0
            ) as package:
                rows = await package.embeddings.create(model="storyteller", input="fox", encoding_format="float")
            assert rows.data[0].embedding == [0.5, -1.0]
        assert len(asked) == 4
        assert all("seed" not in one and "lading" not in one for one in asked)

    asyncio.run(story())


def test_an_embedding_that_nobody_makes_is_an_error_in_words() -> None:
    async def story() -> None:
        async with gates(hangs_up, NO_VECTORS["is full"]) as (urls, asked):
            client = Client.through(urls[0], "a", [(urls[1], "b")])
            with pytest.raises(GatewayError) as caught:
                await client.embed("storyteller", ["fox"])
            await client.close()
        assert caught.value.code == "overloaded"
        assert len(asked) == 2, "each is asked once"

    asyncio.run(story())


def refuses_the_form(status: str, told: Any) -> Mode:
    """A gateway from before `x-lading-ids: 2`, with what it said then."""
    refusal = {"message": "The header x-lading-ids is 0 or 1.", "code": "invalid_value", "param": "x-lading-ids"}

    async def mode(body: dict[str, Any], write: Write) -> None:
        if body["x-lading-ids"] == "2":
            await replies("400 Bad Request", {"error": refusal})(body, write)
        elif isinstance(told, bytes):
            await write(
                f"HTTP/1.1 {status}\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n".encode() + told
            )
        else:
            await replies(status, told)(body, write)

    return mode


PLAIN = b"".join(event({"choices": [{"index": 0, "delta": {"content": one}, "finish_reason": None}]}) for one in WORDS)
BILLED = PLAIN + end({}).split(b"\n", 1)[1]
ELDER = refuses_the_form("200 OK", BILLED)


def test_an_older_gateway_answers_as_it_always_did() -> None:
    async def story() -> None:
        async with gates(ELDER) as (urls, asked):
            text, bill, notices = await ask(urls)
            assert (text, bill.cost, notices) == ("".join(WORDS), 6000, 0)
        assert len(asked) == 2
        assert asked[0] == asked[1]
        async with gates(refuses_the_form("200 OK", ROWS)) as (urls, _), Client.through(urls[0], "a") as client:
            assert (await client.embed("storyteller", ["fox"])).vectors == ((0.5, -1.0),)

    asyncio.run(story())


def test_an_older_gateway_is_asked_twice_and_its_second_refusal_is_told() -> None:
    async def story() -> None:
        unknown = {"error": {"message": "No such model.", "code": "model_not_found"}}
        async with gates(refuses_the_form("404 Not Found", unknown), honest) as (urls, asked):
            with pytest.raises(GatewayError) as caught:
                await ask(urls)
            assert (caught.value.code, len(asked)) == ("model_not_found", 2)

    asyncio.run(story())


def test_what_an_older_gateway_cannot_go_on_with_another_one_does() -> None:
    async def story() -> None:
        async with gates(BAD["breaks off"], ELDER, honest) as (urls, asked):
            text, bill, notices = await ask(urls)
        assert (text, bill.output_tokens, notices) == ("".join(WORDS), 6, 2)
        assert [first_of(one) for one in asked] == [0, 3, 3]

    asyncio.run(story())


def test_the_package_above_waits_as_long_as_it_says() -> None:
    async def stands_still(body: dict[str, Any], write: Write) -> None:
        await write(HEAD + line(Told(events=1)) + event({"choices": []}))
        await asyncio.sleep(60)

    async def story() -> None:
        async with gates(stands_still) as (urls, _):
            through = async_http_client(urls[0], "a")
            asked = AsyncOpenAI(base_url=urls[0] + "/v1", api_key="a", http_client=through, timeout=0.3, max_retries=0)
            stream = await asked.chat.completions.create(
                model="storyteller", messages=[{"role": "user", "content": "hi"}], stream=True
            )
            with pytest.raises((APITimeoutError, httpx.ReadTimeout)):
                async for _ in stream:
                    pass
            await asked.close()

    asyncio.run(story())
