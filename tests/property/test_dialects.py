"""In every dialect a stream says what the whole answer says, wherever it is cut and in whatever order choices come."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from lading_coordinator.core.answer import Bill, Share
from lading_coordinator.core.chats import ChatDialect
from lading_coordinator.core.completions import CompletionDialect
from lading_coordinator.core.dialect import Answer, Dialect, Voice
from lading_coordinator.core.responses import ResponseDialect
from lading_coordinator.core.tools import Tools
from lading_protocol.ids import JobId, Wei
from lading_protocol.messages import Chance
from lading_protocol.receipts import Finish

VOICE = Voice(JobId(b"\x07" * 32), 1_800_000_000, "m", "f")
BILL = Bill((VOICE.job,), Wei(5), 3, 4, (Share(b"\x01" * 20, 0, 4, Wei(5)),), 18)
TOOLS = Tools(("f", "g"), b"[]")
CALL = '<tool_call>{"name":"f","arguments":{"a":"é"}}</tool_call>'
PIECES = st.lists(st.text(max_size=6) | st.sampled_from([CALL, CALL[:20], CALL[20:], "<tool_call>", "\n"]), max_size=8)
FINISHES = st.sampled_from([Finish.STOP, Finish.LENGTH])


def chances(text: str) -> tuple[Chance, ...]:
    return tuple(Chance(-0.5, one.encode(), ((-0.5, one.encode()),)) for one in text)


def stream(dialect: Dialect, answers: list[tuple[list[str], Finish]], order: Any, *, told: bool) -> list[Any]:
    """The events, with the pieces of the choices as `order` mixes them; the end mark is the string [DONE]."""
    left = [list(pieces) for pieces, _ in answers]
    waiting = set(range(len(answers)))
    data = dialect.begin()
    while waiting:
        index = order(sorted(waiting))
        if left[index]:
            text = left[index].pop(0)
            data += dialect.piece(index, text, chances(text) if told else ())
        else:
            data += dialect.finished(index, answers[index][1])
            waiting.remove(index)
    data += dialect.end(BILL)
    lines = [line for line in data.decode().split("\n") if line and not line.startswith("event: ")]
    assert all(line.startswith("data: ") for line in lines)
    return [line[6:] if line == "data: [DONE]" else json.loads(line[6:]) for line in lines]


def whole(dialect: Dialect, answers: list[tuple[list[str], Finish]], *, told: bool) -> Any:
    texts = [("".join(pieces), finish) for pieces, finish in answers]
    done = [Answer(text, finish, chances(text) if told else ()) for text, finish in texts]
    return json.loads(dialect.whole(done, BILL))


def ordered(data: st.DataObject) -> Any:
    return lambda waiting: data.draw(st.sampled_from(waiting))


@given(st.lists(st.tuples(PIECES, FINISHES), min_size=1, max_size=3), st.booleans(), st.booleans(), st.data())
def test_chats(answers: list[tuple[list[str], Finish]], tools: bool, told: bool, data: st.DataObject) -> None:
    def made() -> ChatDialect:
        return ChatDialect(VOICE, len(answers), include_usage=told, tools=TOOLS if tools else None)

    *events, last, mark = stream(made(), answers, ordered(data), told=told)
    assert mark == "[DONE]"
    assert last["lading"]["cost_wei"] == "5"
    assert (last.get("usage") is not None) == told
    for choice in whole(made(), answers, told=told)["choices"]:
        mine = [one for event in [*events, last] for one in event["choices"] if one["index"] == choice["index"]]
        message = choice["message"]
        assert "".join(one["delta"].get("content") or "" for one in mine) == (message["content"] or "")
        finishes = [one["finish_reason"] for one in mine if one["finish_reason"]]
        assert finishes == [choice["finish_reason"]]
        assert mine[-1]["finish_reason"] is not None
        calls: list[dict[str, Any]] = []
        for call in (one for choice in mine for one in choice["delta"].get("tool_calls", ())):
            if "id" in call:
                assert call["index"] == len(calls)
                calls.append({"id": call["id"], "type": "function", "function": dict(call["function"])})
            else:
                calls[call["index"]]["function"]["arguments"] += call["function"]["arguments"]
        assert calls == message.get("tool_calls", [])
        listed = [one for choice in mine if choice["logprobs"] for one in choice["logprobs"]["content"]]
        assert listed == (choice["logprobs"]["content"] if choice["logprobs"] else [])


@given(st.lists(st.tuples(PIECES, FINISHES), min_size=1, max_size=3), st.booleans(), st.data())
def test_completions(answers: list[tuple[list[str], Finish]], told: bool, data: st.DataObject) -> None:
    *events, last, mark = stream(CompletionDialect(VOICE, len(answers)), answers, ordered(data), told=told)
    assert mark == "[DONE]"
    assert last["lading"]["cost_wei"] == "5"
    for choice in whole(CompletionDialect(VOICE, len(answers)), answers, told=told)["choices"]:
        mine = [one for event in [*events, last] for one in event["choices"] if one["index"] == choice["index"]]
        assert "".join(one["text"] for one in mine) == choice["text"]
        assert mine[-1]["finish_reason"] == choice["finish_reason"]
        for part in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
            listed = [value for one in mine if one["logprobs"] for value in one["logprobs"][part]]
            assert listed == (choice["logprobs"][part] if choice["logprobs"] else [])


@given(PIECES, FINISHES, st.booleans(), st.booleans())
def test_responses(pieces: list[str], finish: Finish, tools: bool, told: bool) -> None:
    def made() -> ResponseDialect:
        return ResponseDialect(VOICE, {"tools": []}, TOOLS if tools else None)

    events = stream(made(), [(pieces, finish)], lambda waiting: waiting[0], told=told)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    response = events[-1]["response"]
    assert events[-1]["type"] == f"response.{response['status']}"
    built: list[dict[str, Any]] = []
    for event in events:
        match event["type"]:
            case "response.output_item.added":
                assert event["output_index"] == len(built)
                built.append({"text": "", "done": False, "kind": event["item"]["type"]})
            case "response.output_text.delta" | "response.function_call_arguments.delta":
                assert not built[event["output_index"]]["done"]
                built[event["output_index"]]["text"] += event["delta"]
            case "response.output_item.done":
                built[event["output_index"]]["done"] = True
                assert event["item"] == response["output"][event["output_index"]]
    for item, one in zip(response["output"], built, strict=True):
        assert one["done"]
        assert one["text"] == (item["content"][0]["text"] if item["type"] == "message" else item["arguments"])
    at_once = whole(made(), [(pieces, finish)], told=told)
    assert [at_once["status"], at_once["usage"]] == [response["status"], response["usage"]]

    def said(output: Any) -> str:
        return "".join(item["content"][0]["text"] for item in output if item["type"] == "message")

    def called(output: Any) -> list[Any]:
        calls = [item for item in output if item["type"] == "function_call"]
        return [(item["name"], item["arguments"]) for item in calls]

    assert {item["status"] for item in at_once["output"][:-1]} <= {"completed"}
    assert at_once["output"][-1]["status"] == ("incomplete" if finish is Finish.LENGTH else "completed")
    assert response["output"][-1]["status"] == at_once["output"][-1]["status"]
    assert said(at_once["output"]) == said(response["output"])
    assert called(at_once["output"]) == called(response["output"])
