"""What a host says in one write leaves the gateway in one; a token that comes alone leaves when it comes."""

import asyncio
from typing import Any

import pytest

from lading_net.ports import Stream
from unit.coordinator.conftest import Play
from unit.coordinator.host import Habits, Host
from unit.coordinator.world import Wire, World, encode

MESSAGES = [{"role": "user", "content": "tell me a story"}]
CHAT, OLDER, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"
WHOLE = "a hill and slept the fox went over a hill and "


class _Held:
    """A stream on which nothing leaves until it is closed."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._held: list[bytes] = []
        self.write = self._held.append

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    async def drain(self) -> None: ...

    async def close(self) -> None:
        self._stream.write(b"".join(self._held))
        await self._stream.close()


class Sudden(Host):
    """Says a whole answer in one write."""

    async def _job(self, stream: Stream) -> None:
        await super()._job(_Held(stream))  # type: ignore[arg-type]


def ask(world: World, path: str, body: dict[str, Any], api_key: str, **headers: str) -> Wire:
    wire = world.connect()
    wire.send(encode("POST", path, {"model": "storyteller", "stream": True} | body, api_key, **headers))
    return wire


@pytest.mark.parametrize("ids", ["0", "1", "2"])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, {"messages": MESSAGES}),
        (CHAT, {"messages": MESSAGES, "stream_options": {"include_usage": True}}),
        (OLDER, {"prompt": "once upon a time"}),
        (RESPONSES, {"input": "tell me a story"}),
    ],
)
def test_a_burst_with_its_end_leaves_in_one_write(play: Play, path: str, body: dict[str, Any], ids: str) -> None:
    async def story(world: World) -> None:
        await world.host("sudden", Habits(length=100), kind=Sudden)
        wire = ask(world, path, body, await world.session(), x_lading_ids=ids)
        answer = await wire.answer()
        assert answer.status == 200
        assert answer.body.count(b"slept") >= 12
        assert wire.writes == 1

    play(story)


def test_each_choice_leaves_as_it_comes(play: Play) -> None:
    async def story(world: World) -> None:
        await world.host("sudden", kind=Sudden)
        body = {"messages": MESSAGES, "n": 3}
        wire = ask(world, CHAT, body, await world.session())
        answer = await wire.answer()
        for index in range(3):
            mine = [choice for event in answer.events[:-1] for choice in event["choices"] if choice["index"] == index]
            assert "".join(one["delta"].get("content") or "" for one in mine) == WHOLE
            assert mine[-1]["finish_reason"] == "stop"
        assert wire.writes == 3

    play(story)


@pytest.mark.parametrize("ids", ["0", "1", "2"])
def test_a_token_that_comes_alone_leaves_when_it_comes(play: Play, ids: str) -> None:
    async def story(world: World) -> None:
        host = await world.host("slow", Habits(pause=0.1))
        wire = ask(world, CHAT, {"messages": MESSAGES}, await world.session(), x_lading_ids=ids)
        seen = []
        while not host.served or host.running:
            await asyncio.sleep(0.1)
            seen.append(wire.read())
        told = [one.count(b'"content":"') - one.count(b'"content":""') for one in seen]
        assert set(told) <= {0, 1}
        assert sum(told) == 11

    play(story)


def test_the_next_request_may_stand_behind_a_burst(play: Play) -> None:
    """The end of an answer is told from within the network's turn: the next one begins there, too."""

    async def story(world: World) -> None:
        await world.host("sudden", kind=Sudden)
        wire, api_key = world.connect(), await world.session()
        body = {"model": "storyteller", "messages": MESSAGES, "stream": True}
        for _ in range(3):
            wire.send(encode("POST", CHAT, body, api_key))
        wire.send(encode("POST", CHAT, body | {"stream": False}, api_key, connection="close"))
        for _ in range(3):
            assert (await wire.answer()).text == WHOLE
        assert (await wire.answer()).json["choices"][0]["message"]["content"] == WHOLE
        await asyncio.sleep(0.1)
        assert wire.closed
        assert wire.writes == 4
        jobs = await world.ask("GET", "/metrics")
        assert b'lading_jobs_total{code="ok",operation="chat"} 4.0' in jobs.body

    play(story)
