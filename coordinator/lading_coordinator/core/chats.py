"""The dialect of chat completions, byte for byte what OpenAI's SDKs read."""

from collections.abc import Sequence
from typing import Any

import msgspec

from lading_coordinator.core.answer import Bill, lading_facts, usage
from lading_coordinator.core.calls import MAX_DEPTH, Argued, Called, CallReader, News, Said
from lading_coordinator.core.dialect import (
    DONE,
    FINISH,
    Answer,
    Call,
    Voice,
    broken,
    data,
    encode,
    listed,
    read_calls,
    reader_of,
)
from lading_coordinator.core.tools import Tools
from lading_coordinator.errors import ApiError
from lading_protocol.messages import Chance
from lading_protocol.nesting import deeper
from lading_protocol.receipts import Finish

_FIRST = {"role": "assistant", "content": "", "refusal": None}


class ChatDialect:
    """One reply with `choices` answers. The part of a stream's events that does not change is encoded once."""

    def __init__(self, voice: Voice, choices: int, *, include_usage: bool = False, tools: Tools | None = None) -> None:
        self._voice = voice
        self._choices = choices
        self._usage = include_usage
        self._tools = tools
        self._readers: list[CallReader] = [reader_of(tools) for _ in range(choices)] if tools is not None else []
        self._left = choices
        self._finishing = b""
        self._before: list[bytes] = []
        self._after = b""

    def begin(self) -> bytes:
        head = encode(self._head("chat.completion.chunk"))[:-1]
        self._before = [
            b'data: %b,"choices":[{"index":%d,"delta":{"content":' % (head, index) for index in range(self._choices)
        ]
        tail = b',"usage":null' if self._usage else b""
        self._after = b'},"logprobs":null,"finish_reason":null}]' + tail + b"}\n\n"
        return b"".join([self._event(index, dict(_FIRST)) for index in range(self._choices)])

    def piece(self, index: int, text: str, chances: tuple[Chance, ...]) -> bytes:
        if self._readers:
            return self._told(index, self._readers[index].feed(text), chances)
        if chances:
            return self._event(index, {"content": text}, chances)
        return self._before[index] + encode(text) + self._after if text else b""

    def finished(self, index: int, finish: Finish) -> bytes:
        """The last of them is held back: the bill stands in it unless usage has an event of its own."""
        before, reason = b"", FINISH[finish]
        if self._readers:
            before = self._told(index, self._readers[index].close(), ())
            if self._readers[index].count and finish is Finish.STOP:
                reason = "tool_calls"
        event = self._event(index, {}, finish=reason)
        self._left -= 1
        if self._left:
            return before + event
        self._finishing = event
        return before

    @property
    def keeps(self) -> Sequence[str]:
        return ("text",) if self._readers else ()

    def told(self, events: int) -> None: ...

    def end(self, bill: Bill) -> bytes:
        facts = lading_facts(bill)
        if self._usage:
            spent = usage(bill.prompt_tokens, bill.output_tokens)
            last = {"choices": [], "usage": spent, "lading": facts}
            return self._finishing + data(self._head("chat.completion.chunk") | last) + DONE
        return self._finishing.removesuffix(b"}\n\n") + b',"lading":' + encode(facts) + b"}\n\n" + DONE

    def broken(self, error: ApiError) -> bytes:
        return self._finishing + broken(error)

    def whole(self, answers: Sequence[Answer], bill: Bill) -> bytes:
        tree = self._head("chat.completion") | {
            "choices": [self._choice(index, answer) for index, answer in enumerate(answers)],
            "usage": usage(bill.prompt_tokens, bill.output_tokens),
            "lading": lading_facts(bill),
        }
        return encode(tree)

    def _choice(self, index: int, answer: Answer) -> dict[str, Any]:
        text, calls = read_calls(answer, self._tools, self._call_id(index, ""))
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None, "annotations": []}
        reason = FINISH[answer.finish]
        if calls:
            message |= {"content": text or None, "tool_calls": [_call(one) for one in calls]}
            reason = "tool_calls" if answer.finish is Finish.STOP else reason
        chances = {"content": listed(answer.chances), "refusal": None} if answer.chances else None
        return {"index": index, "message": message, "logprobs": chances, "finish_reason": reason}

    def _told(self, index: int, news: Sequence[News], chances: tuple[Chance, ...]) -> bytes:
        events = []
        for one in news:
            match one:
                case Said(text):
                    events.append(self._event(index, {"content": text}, chances))
                    chances = ()
                case Called(at, name):
                    call = {"index": at, **_call(Call(self._call_id(index, at), name))}
                    events.append(self._event(index, {"tool_calls": [call]}))
                case Argued(at, text):
                    given = {"index": at, "function": {"arguments": text}}
                    events.append(self._event(index, {"tool_calls": [given]}))
        if chances:
            events.append(self._event(index, {"content": ""}, chances))
        return b"".join(events)

    def _call_id(self, index: int, at: int | str) -> str:
        return f"call_{self._voice.name[:20]}{index}_{at}"

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-{self._voice.name}",
            "object": kind,
            "created": self._voice.created,
            "model": self._voice.model,
            "system_fingerprint": self._voice.fingerprint,
        }

    def _event(
        self, index: int, delta: dict[str, Any], chances: Sequence[Chance] = (), finish: str | None = None
    ) -> bytes:
        told = {"content": listed(chances), "refusal": None} if chances else None
        choice = {"index": index, "delta": delta, "logprobs": told, "finish_reason": finish}
        tree = self._head("chat.completion.chunk") | {"choices": [choice]} | ({"usage": None} if self._usage else {})
        return data(tree)


class CallDialect(ChatDialect):
    """Calls of any other operation: a stream is that of a chat, whole they have a shape of their own."""

    def __init__(self, voice: Voice, operation: str) -> None:
        super().__init__(voice, 1, include_usage=True)
        self._operation = operation

    def whole(self, answers: Sequence[Answer], bill: Bill) -> bytes:
        """`output` is the agent's answer as JSON, or as a string when it is none (or was cut off)."""
        (answer,) = answers
        tree = self._head("lading.call") | {
            "operation": self._operation,
            "output": _output(answer.text),
            "finish_reason": FINISH[answer.finish],
            "usage": usage(bill.prompt_tokens, bill.output_tokens),
            "lading": lading_facts(bill),
        }
        return encode(tree)


def _call(call: Call) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _output(text: str) -> Any:
    if deeper(text.encode(), MAX_DEPTH):
        return text
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return text
