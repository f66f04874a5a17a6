"""An answer of any form that is cut anywhere, any number of times, and gone on with elsewhere, is the one that it would
have been: event for event, with the same usage, each token paid once."""

import asyncio
import json
import random
import re
from pathlib import Path
from typing import Any

import pytest

from lading.core.continued import Continued
from lading_net.clock import run_virtual
from lading_protocol.messages import Refuse
from lading_protocol.pricing import Price, attempt_amount
from unit.coordinator.host import Habits
from unit.coordinator.world import Answer, World

MESSAGES = [{"role": "user", "content": "tell me a story"}]
WEATHER = {
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
HERMES = (
    'Let me see.\n<tool_call>\n{"name": "weather", "arguments": {"city": "Zurich, and the rest of it"}}\n</tool_call>'
)
TWICE = HERMES + '\n<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>'
CALL = '{"name": "weather", "arguments": {"city": "Zurich"}}'
TOOLS = {"tools": [{"type": "function", "function": WEATHER}]}
FORCED = {"tool_choice": {"type": "function", "function": {"name": "weather"}}}
CHAT, OLDER, RESPONSES, OTHER = "/v1/chat/completions", "/v1/completions", "/v1/responses", "/lading/v1/call"
USAGE = {"stream_options": {"include_usage": True}}
FORMS: dict[str, tuple[str, dict[str, Any], str]] = {
    "chat": (CHAT, {"messages": MESSAGES}, ""),
    "chat with usage": (CHAT, {"messages": MESSAGES, **USAGE}, ""),
    "three choices": (CHAT, {"messages": MESSAGES, "n": 3, **USAGE}, ""),
    "logprobs": (CHAT, {"messages": MESSAGES, "logprobs": True, "top_logprobs": 2}, ""),
    "tools": (CHAT, {"messages": MESSAGES, **TOOLS}, TWICE),
    "tools and logprobs": (CHAT, {"messages": MESSAGES, "logprobs": True, "n": 2, **TOOLS}, HERMES),
    "a call that must be": (CHAT, {"messages": MESSAGES, **TOOLS, **FORCED}, CALL),
    "schema": (CHAT, {"messages": MESSAGES, "response_format": {"type": "json_object"}}, '{"a": 1}'),
    "completions": (OLDER, {"prompt": "once upon"}, ""),
    "several prompts": (OLDER, {"prompt": ["a", "b c"], "n": 2, "logprobs": 2, **USAGE}, ""),
    "responses": (RESPONSES, {"input": "tell me"}, ""),
    "responses with logprobs": (RESPONSES, {"input": "tell me", "top_logprobs": 1}, ""),
    "responses with tools": (RESPONSES, {"input": "tell me", "tools": [{"type": "function", **WEATHER}]}, HERMES),
    "another operation": (OTHER, {"operation": "echo", "input": {"a": [1, 2, 3]}}, ""),
}


def play(folder: Path, says: str, story: Any) -> None:
    async def main() -> None:
        async with World(asyncio.get_running_loop(), folder, audits=False).running() as world:
            for label in ("one", "two"):
                await world.host(label, Habits(says=says, takes_fees=True))
            await story(world, await world.session())

    run_virtual(main())


async def read(
    world: World, api_key: str, path: str, body: dict[str, Any], cuts: list[float]
) -> tuple[bytes, Continued]:
    """What a consumer is handed out that loses its gateway at each of `cuts` (of the bytes of what that one sent)."""
    answer, out = Continued(), b""
    for cut in [*cuts, 1.0]:
        reply: Answer = await world.ask("POST", path, answer.body(body), api_key, x_lading_ids="2")
        assert reply.status == 200, reply.body
        data = reply.body[: int(cut * len(reply.body))]
        answer.head(reply.headers)
        at = 0
        while at < len(data):  # in pieces of any size
            size = random.Random(at).choice((1, 7, 100, 5000))
            out += b"".join(answer.feed(data[at : at + size]))
            at += size
        if answer.done:
            break
    return out, answer


def plain(events: bytes) -> list[str]:
    """Without what names this very answer, and without which host and job did which part; choice by choice."""
    return sorted(map(_plain, events.decode().split("\n\n")), key=_choice)


def _choice(event: str) -> int:
    """Several choices run side by side, so which of them says something first is chance."""
    found = re.search(r'"choices":\[\{[^[]*?"index":(\d+)', event)
    return int(found[1]) if found else 99


def _plain(event: str) -> str:
    text = re.sub(r"[0-9a-f]{31,64}(?=[0-9]?_?)|call_[0-9a-f]{20}", "ID", event)
    text = re.sub(r'"created(_at)?":\d+', '"created":0', text)
    return re.sub(r',"hosts":\[[^]]*\],"parts":\[[^]]*\]|"jobs?":("0xID"|\[[^]]*\]),?', "", text)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("stream", [True, False])
def test_what_goes_on_elsewhere_is_what_it_would_have_been(tmp_path: Path, form: str, stream: bool) -> None:
    path, asked, says = FORMS[form]
    seed = {} if path == OTHER else {"seed": 7}
    body = {"model": "storyteller", "stream": stream, **seed, **asked}
    if not stream:
        body.pop("stream_options", None)

    async def story(world: World, api_key: str) -> None:
        rng = random.Random(form)
        unbroken, _ = await read(world, api_key, path, body, [])
        as_ever = await world.ask("POST", path, body, api_key)
        there = as_ever.body if stream else b"data: " + as_ever.body + b"\n\n"
        assert plain(unbroken) == plain(there), "what it tells beside changes nothing of an answer"
        for times in (1, 1, 1, 1, 2, 2, 5):
            cuts = [rng.random() for _ in range(times)]
            got, answer = await read(world, api_key, path, body, cuts)
            assert plain(got) == plain(unbroken), (form, cuts)
            check_paid(world, answer)

    play(tmp_path, says, story)


def check_paid(world: World, answer: Continued) -> None:
    """The price of every token once, and of each prompt once: to the wei, as hosts round each part up."""
    [known] = world.hosts[0].offers.values()
    price: Price = known.price
    whole = sum(attempt_amount(price, one.prompt, 0, len(one.ids)) for one in answer.choices)
    assert whole <= answer.cost <= whole + len(answer.jobs)


def test_receipts_of_all_gateways_are_kept(tmp_path: Path) -> None:
    async def story(world: World, api_key: str) -> None:
        body = {"model": "storyteller", "seed": 7, "stream": True, "messages": MESSAGES, "max_tokens": 90}
        world.hosts[0].habits = world.hosts[1].habits = Habits(length=90)
        await read(world, api_key, CHAT, body, [])  # from then on it is known what hosts understand
        await read(world, api_key, CHAT, body, [])
        _, answer = await read(world, api_key, CHAT, body, [0.1, 0.9])
        assert len(answer.jobs) == len({one.job for one in answer.receipts.values()}) == 3
        assert answer.choices[0].proof

    play(tmp_path, "", story)


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"choices": []}, "lading"),
        ({"agent": "story"}, "lading"),
        ({"paid": "-1"}, "lading"),
        ({"more": 1}, "lading"),
        ({"choices": [{"most": 0}]}, "lading"),
        ({"choices": [{"most": 5}, {"most": 5}]}, "lading.choices"),
        ({"choices": [{"most": 12, "finish": "stop"}]}, "lading.choices"),
        ({"choices": [{"most": 12, "ids": [-1]}]}, "lading"),
    ],
)
def test_what_is_no_rest_is_refused(tmp_path: Path, changes: dict[str, Any], param: str) -> None:
    async def story(world: World, api_key: str) -> None:
        rest = {"agent": "0x" + world.agent.hex(), "job": "0x" + "11" * 32, "created": 1, "events": 1}
        body = {"model": "storyteller", "messages": MESSAGES, "lading": rest | {"choices": [{"most": 12}]} | changes}
        reply = await world.ask("POST", CHAT, body, api_key, x_lading_ids="2")
        assert (reply.status, reply.error["param"]) == (400, param), reply.body
        assert not any(host.served for host in world.hosts)

    play(tmp_path, "", story)


def test_an_error_in_the_middle_is_told_in_words(tmp_path: Path) -> None:
    async def story(world: World, api_key: str) -> None:
        world.hosts[0].habits = Habits(fails_after=3)
        world.hosts[1].habits = Habits(refuses=Refuse("bad", "Not now."))
        for stream in (True, False):
            body = {"model": "storyteller", "seed": 7, "messages": MESSAGES, "stream": stream}
            reply = await world.ask("POST", CHAT, body, api_key, x_lading_ids="2")
            answer = Continued()
            answer.head(reply.headers)
            answer.feed(reply.body)
            assert answer.failed is not None
            assert answer.failed[0] == "job_lost"
            assert json.loads(answer.shown[6:])["error"]["code"] == "job_lost"

    play(tmp_path, "", story)
