"""The unmodified `openai` package: completions, responses, several choices, tools, and how likely tokens were."""

import json
from pathlib import Path
from typing import Any, Literal

import openai
import pydantic
import pytest

from integration.coordinator.test_openai_sdk import MESSAGES, play
from integration.coordinator.town import Town
from lading_protocol.messages import RichChat
from unit.coordinator.host import Habits

WEATHER: dict[str, Any] = {
    "name": "weather",
    "description": "The weather of a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
}
TOOLS: Any = [{"type": "function", "function": WEATHER}]
FORCED: Any = {"type": "function", "function": {"name": "weather"}}
CALL = '{"name":"weather","arguments":{"city":"Zürich"}}'
HERMES = f"Let me see.\n<tool_call>\n{CALL}\n</tool_call>"


def test_several_choices_are_one_bill(tmp_path: Path) -> None:
    async def story(made: Town, client: Any) -> None:
        host = await made.host("one")
        raw = await client.chat.completions.with_raw_response.create(
            model="storyteller", messages=MESSAGES, n=3, max_tokens=5, seed=4
        )
        whole = raw.parse()
        assert [choice.index for choice in whole.choices] == [0, 1, 2]
        assert [len(choice.message.content.split()) for choice in whole.choices] == [5, 5, 5]
        assert whole.usage.completion_tokens == 15
        assert whole.usage.prompt_tokens == 12
        jobs = whole.lading["jobs"]
        assert raw.headers["x-lading-job"].split(",") == jobs
        assert len(set(jobs)) == 3
        assert sum(int(part["amount_wei"]) for part in whole.lading["parts"]) == int(raw.headers["x-lading-cost"])
        seeds = [opening.request.sampler.seed for opening in host.served]  # type: ignore[union-attr]
        assert len(set(seeds)) == 3
        await client.chat.completions.create(model="storyteller", messages=MESSAGES, seed=4, max_tokens=5)
        assert host.served[-1].request.sampler.seed in seeds  # type: ignore[union-attr]
        stream = await client.chat.completions.create(
            model="storyteller", messages=MESSAGES, n=2, stream=True, stream_options={"include_usage": True}
        )
        texts = ["", ""]
        finishes: list[Any] = [None, None]
        async for chunk in stream:
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
                finishes[choice.index] = choice.finish_reason or finishes[choice.index]
            last = chunk
        assert [len(text.split()) for text in texts] == [11, 11]
        assert finishes == ["stop", "stop"]
        assert last.usage.completion_tokens == 24

    play(tmp_path, story)


def test_how_likely_tokens_were(tmp_path: Path) -> None:
    async def story(made: Town, client: Any) -> None:
        await made.host("one")
        ask: dict[str, Any] = {"model": "storyteller", "messages": MESSAGES, "max_tokens": 4, "logprobs": True}
        whole = await client.chat.completions.create(**ask, top_logprobs=2)
        told = whole.choices[0].logprobs.content
        assert "".join(one.token for one in told) == whole.choices[0].message.content
        assert [len(one.top_logprobs) for one in told] == [2] * 4
        assert told[0].logprob == -0.25
        assert bytes(told[0].bytes).decode() == told[0].token
        stream = await client.chat.completions.create(**ask, stream=True)
        choices = [chunk.choices[0] async for chunk in stream]
        seen = [one for choice in choices if choice.logprobs for one in choice.logprobs.content]
        assert [one.token for one in seen] == [one.token for one in told]
        assert all(one.top_logprobs == [] for one in seen)
        older = await client.completions.create(model="storyteller", prompt="tell me", logprobs=1, max_tokens=3)
        lists = older.choices[0].logprobs
        assert "".join(lists.tokens) == older.choices[0].text
        assert lists.text_offset == [0, len(lists.tokens[0]), len(lists.tokens[0] + lists.tokens[1])]

    play(tmp_path, story)


def test_a_function_is_called_by_name(tmp_path: Path) -> None:
    """The answer is held to the parameters' schema, and arrives as a call."""

    async def story(made: Town, client: Any) -> None:
        host = await made.host("one", Habits(says=CALL))
        ask: dict[str, Any] = {"model": "storyteller", "messages": MESSAGES, "tools": TOOLS, "tool_choice": FORCED}
        whole = await client.chat.completions.create(**ask)
        (call,) = whole.choices[0].message.tool_calls
        assert (whole.choices[0].finish_reason, whole.choices[0].message.content) == ("tool_calls", None)
        assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "Zürich"})
        request = host.served[0].request
        assert isinstance(request, RichChat)
        assert json.loads(request.tools) == TOOLS
        assert json.loads(request.sampler.grammar)["$defs"]["weather"] == WEATHER["parameters"]
        async with client.chat.completions.stream(**ask) as stream:
            kinds = [event.type async for event in stream]
        assert "tool_calls.function.arguments.delta" in kinds
        final = await stream.get_final_completion()
        assert json.loads(final.choices[0].message.tool_calls[0].function.arguments) == {"city": "Zürich"}
        turns = [
            *MESSAGES,
            {"role": "assistant", "content": None, "tool_calls": [call.model_dump(exclude_none=True)]},
            {"role": "tool", "tool_call_id": call.id, "content": "sunny"},
        ]
        await client.chat.completions.create(**ask | {"messages": turns, "tool_choice": "none"})
        request = host.served[-1].request
        assert isinstance(request, RichChat)
        assert request.tools == b""
        beside = [(at, json.loads(data)) for at, data in request.turns]
        assert beside[0][1]["tool_calls"][0]["function"] == {"name": "weather", "arguments": {"city": "Zürich"}}
        assert beside[1] == (2, {"tool_call_id": call.id})

    play(tmp_path, story)


def test_a_model_chooses_to_call(tmp_path: Path) -> None:
    async def story(made: Town, client: Any) -> None:
        await made.host("one", Habits(says=HERMES))
        ask: dict[str, Any] = {"model": "storyteller", "messages": MESSAGES, "tools": TOOLS}
        whole = await client.chat.completions.create(**ask)
        message = whole.choices[0].message
        assert message.content.strip() == "Let me see."
        assert json.loads(message.tool_calls[0].function.arguments) == {"city": "Zürich"}
        stream = await client.chat.completions.create(**ask, stream=True)
        text, given, finish = "", "", None
        async for chunk in stream:
            delta = chunk.choices[0].delta
            text += delta.content or ""
            given += "".join(call.function.arguments or "" for call in delta.tool_calls or ())
            finish = chunk.choices[0].finish_reason or finish
        assert (text.strip(), json.loads(given), finish) == ("Let me see.", {"city": "Zürich"}, "tool_calls")

    play(tmp_path, story)


def test_completions(tmp_path: Path) -> None:
    async def story(made: Town, client: Any) -> None:
        host = await made.host("one")
        one = await client.completions.create(model="storyteller", prompt="once upon", max_tokens=4)
        assert (one.choices[0].finish_reason, one.usage.completion_tokens) == ("length", 4)
        assert host.served[-1].request.prompt == "once upon"  # type: ignore[union-attr]
        many = await client.completions.create(model="storyteller", prompt=["a", "b c"], n=2, max_tokens=2)
        assert [choice.index for choice in many.choices] == [0, 1, 2, 3]
        assert many.usage.completion_tokens == 8
        await client.completions.create(model="storyteller", prompt=[5, 6, 7], max_tokens=2)
        assert host.served[-1].request.prompt == (5, 6, 7)  # type: ignore[union-attr]
        stream = await client.completions.create(
            model="storyteller", prompt="once upon", max_tokens=4, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
        assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == one.choices[0].text
        assert chunks[-1].usage.completion_tokens == 4
        for change, param in (({"echo": True}, "echo"), ({"suffix": "end"}, "suffix"), ({"best_of": 3}, "best_of")):
            with pytest.raises(openai.BadRequestError) as caught:
                await client.completions.create(model="storyteller", prompt="a", **change)
            assert (caught.value.code, caught.value.param) == ("unsupported_parameter", param)

    play(tmp_path, story)


def test_responses(tmp_path: Path) -> None:
    async def story(made: Town, client: Any) -> None:
        host = await made.host("one")
        ask: dict[str, Any] = {"model": "storyteller", "instructions": "be brief", "input": "tell me a story"}
        whole = await client.responses.create(**ask, max_output_tokens=5)
        assert len(whole.output_text.split()) == 5
        assert (whole.status, whole.incomplete_details.reason) == ("incomplete", "max_output_tokens")
        assert (whole.usage.input_tokens, whole.usage.output_tokens) == (6, 5)
        assert [message.role for message in host.served[0].request.messages] == ["system", "user"]  # type: ignore[union-attr]
        stream = await client.responses.create(**ask, stream=True)
        events = [event async for event in stream]
        assert [event.sequence_number for event in events] == list(range(len(events)))
        kinds = list(dict.fromkeys(event.type for event in events))
        assert kinds == [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.completed",
        ]
        text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
        assert events[-1].response.output_text == text
        async with client.responses.stream(**ask) as helped:
            final = await helped.get_final_response()
        assert final.output_text == text
        talk = [{"role": "user", "content": "hi"}, *whole.output, {"role": "user", "content": "go on"}]
        await client.responses.create(model="storyteller", input=talk)
        roles = [message.role for message in host.served[-1].request.messages]  # type: ignore[union-attr]
        assert roles == ["user", "assistant", "user"]

    play(tmp_path, story)


def test_responses_with_functions_and_schemas(tmp_path: Path) -> None:
    async def story(made: Town, client: Any) -> None:
        host = await made.host("one", Habits(says=HERMES))
        ask: dict[str, Any] = {"model": "storyteller", "input": "weather?", "tools": [{"type": "function", **WEATHER}]}
        whole = await client.responses.create(**ask)
        message, call = whole.output
        assert (message.type, call.type, call.name) == ("message", "function_call", "weather")
        assert json.loads(call.arguments) == {"city": "Zürich"}
        async with client.responses.stream(**ask) as stream:
            kinds = {event.type async for event in stream}
        assert {"response.function_call_arguments.delta", "response.function_call_arguments.done"} <= kinds
        final = await stream.get_final_response()
        assert json.loads(final.output[1].arguments) == {"city": "Zürich"}
        talk = [{"role": "user", "content": "weather?"}, *whole.output]
        talk.append({"type": "function_call_output", "call_id": call.call_id, "output": "sunny"})
        await client.responses.create(**ask | {"input": talk})
        roles = [one.role for one in host.served[-1].request.messages]  # type: ignore[union-attr]
        assert roles == ["user", "assistant", "assistant", "tool"]
        schema = {"type": "json_schema", "name": "answer", "schema": WEATHER["parameters"], "strict": True}
        await client.responses.create(model="storyteller", input="x", text={"format": schema})
        assert json.loads(host.served[-1].request.sampler.grammar) == WEATHER["parameters"]  # type: ignore[union-attr]
        for change in ({"store": True}, {"previous_response_id": "resp_1"}, {"background": True}):
            with pytest.raises(openai.BadRequestError) as caught:
                await client.responses.create(model="storyteller", input="x", **change)
            assert caught.value.param in change
        with pytest.raises(openai.NotFoundError, match="keeps no answers"):
            await client.responses.retrieve("resp_1")

    play(tmp_path, story)


def test_a_response_that_breaks_raises_while_streaming(tmp_path: Path) -> None:
    async def story(made: Town, client: Any) -> None:
        await made.host("one", Habits(fails_after=3))
        stream = await client.responses.create(model="storyteller", input="hi", stream=True)
        with pytest.raises(openai.APIError) as caught:
            async for _ in stream:
                pass
        assert caught.value.code == "job_lost"

    play(tmp_path, story)


class Weather(pydantic.BaseModel):
    """What a consumer has as a type of its own."""

    city: str
    days: list[Literal["sun", "rain"]]
    note: str | None


def test_answers_and_calls_in_the_consumers_own_types(tmp_path: Path) -> None:
    async def story(made: Town, client: Any) -> None:
        given = '{"city":"Zürich","days":["sun","rain"],"note":null}'
        shaped = await made.host("one", Habits(says=given))
        await made.host("two", Habits(says=f'{{"name":"Weather","arguments":{given}}}'), "caller")
        expected = Weather(city="Zürich", days=["sun", "rain"], note=None)
        chat = await client.chat.completions.parse(model="storyteller", messages=MESSAGES, response_format=Weather)
        assert chat.choices[0].message.parsed == expected
        assert b"Weather" in shaped.served[0].request.sampler.grammar  # type: ignore[union-attr]
        response = await client.responses.parse(model="storyteller", input="weather?", text_format=Weather)
        assert response.output_parsed == expected
        tools = [openai.pydantic_function_tool(Weather)]
        called = await client.chat.completions.parse(
            model="caller", messages=MESSAGES, tools=tools, tool_choice="required"
        )
        assert called.choices[0].message.tool_calls[0].function.parsed_arguments == expected

    play(tmp_path, story)
