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

_FIRST = b'{"role":"assistant","content":"","refusal":null}'


class ChatDialect:
    """One reply with `choices` answers. The part of a stream's events that does not change is encoded once."""

    def __init__(self, voice: Voice, choices: int, *, include_usage: bool = False, tools: Tools | None = None) -> None:
        self._voice = voice
        self._choices = choices
        self._usage = include_usage
        self._tools = tools
        self._readers: list[CallReader] = [reader_of(tools) for _ in range(choices)] if tools is not None else []
        self._left = choices
        self._finishing = self._head = b""
        self._close = b',"usage":null}\n\n' if include_usage else b"}\n\n"
        self._before: list[bytes] = []
        self._after = b""

    def begin(self) -> bytes:
        self._head = head = b"data: " + self._voice.head("chatcmpl-", "chat.completion.chunk")
        self._before = [
            b'%b,"choices":[{"index":%d,"delta":{"content":' % (head, index) for index in range(self._choices)
        ]
        self._after = b'},"logprobs":null,"finish_reason":null}]' + self._close
        return b"".join([self._event(index, _FIRST) for index in range(self._choices)])

    def piece(self, index: int, text: str, chances: tuple[Chance, ...]) -> bytes:
        if self._readers:
            return self._told(index, self._readers[index].feed(text), chances)
        if chances:
            return self._event(index, _content(text), chances)
        return self._before[index] + encode(text) + self._after if text else b""

    def finished(self, index: int, finish: Finish) -> bytes:
        """The last of them is held back: the bill stands in it unless usage has an event of its own."""
        before, reason = b"", FINISH[finish]
        if self._readers:
            before = self._told(index, self._readers[index].close(), ())
            if self._readers[index].count and finish is Finish.STOP:
                reason = "tool_calls"
        event = self._event(index, b"{}", finish=reason)
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
            last = b'%b,"choices":[],"usage":%b,"lading":%b}\n\n' % (self._head, spent, facts)
            return self._finishing + last + DONE
        return b'%b,"lading":%b}\n\n%b' % (self._finishing.removesuffix(b"}\n\n"), facts, DONE)

    def broken(self, error: ApiError) -> bytes:
        return self._finishing + broken(error)

    def whole(self, answers: Sequence[Answer], bill: Bill) -> bytes:
        head = self._voice.head("chatcmpl-", "chat.completion")
        choices = b",".join([self._choice(index, answer) for index, answer in enumerate(answers)])
        spent = usage(bill.prompt_tokens, bill.output_tokens)
        return b'%b,"choices":[%b],"usage":%b,"lading":%b}' % (head, choices, spent, lading_facts(bill))

    def _choice(self, index: int, answer: Answer) -> bytes:
        finish, chances = answer.finish, answer.chances
        text, called, reason = answer.text, b"", FINISH[finish]
        if self._tools is not None:
            text, calls = read_calls(answer, self._tools, self._call_id(index, ""))
            if calls:
                called = b',"tool_calls":' + encode([_call(one) for one in calls])
                reason = "tool_calls" if finish is Finish.STOP else reason
        content = encode(None if called and not text else text)
        message = b'{"role":"assistant","content":%b,"refusal":null,"annotations":[]%b}' % (content, called)
        likely, why = _logprobs(chances), reason.encode()
        return b'{"index":%d,"message":%b,"logprobs":%b,"finish_reason":"%b"}' % (index, message, likely, why)

    def _told(self, index: int, news: Sequence[News], chances: tuple[Chance, ...]) -> bytes:
        events = []
        for one in news:
            match one:
                case Said(text):
                    events.append(self._event(index, _content(text), chances))
                    chances = ()
                case Called(at, name):
                    call = {"index": at, **_call(Call(self._call_id(index, at), name))}
                    events.append(self._event(index, encode({"tool_calls": [call]})))
                case Argued(at, text):
                    given = {"index": at, "function": {"arguments": text}}
                    events.append(self._event(index, encode({"tool_calls": [given]})))
        if chances:
            events.append(self._event(index, _content(""), chances))
        return b"".join(events)

    def _call_id(self, index: int, at: int | str) -> str:
        return f"call_{self._voice.name[:20]}{index}_{at}"

    def _event(self, index: int, delta: bytes, chances: Sequence[Chance] = (), finish: str = "") -> bytes:
        """`delta` is JSON."""
        reason = b'"%b"' % finish.encode() if finish else b"null"
        head, likely, close = self._head, _logprobs(chances), self._close
        begin = b'%b,"choices":[{"index":%d,"delta":%b,"logprobs":' % (head, index, delta)
        return b'%b%b,"finish_reason":%b}]%b' % (begin, likely, reason, close)


class CallDialect(ChatDialect):
    """Calls of any other operation: a stream is that of a chat, whole they have a shape of their own."""

    def __init__(self, voice: Voice, operation: str) -> None:
        super().__init__(voice, 1, include_usage=True)
        self._operation = operation

    def whole(self, answers: Sequence[Answer], bill: Bill) -> bytes:
        """`output` is the agent's answer as JSON, or as a string when it is none (or was cut off)."""
        (answer,) = answers
        said = encode({"operation": self._operation, "output": _output(answer.text)})[1:-1]
        told = said, FINISH[answer.finish].encode(), usage(bill.prompt_tokens, bill.output_tokens), lading_facts(bill)
        head = self._voice.head("chatcmpl-", "lading.call")
        return b'%b,%b,"finish_reason":"%b","usage":%b,"lading":%b}' % (head, *told)


def _content(text: str) -> bytes:
    return b'{"content":%b}' % encode(text)


def _logprobs(chances: Sequence[Chance]) -> bytes:
    return encode({"content": listed(chances), "refusal": None}) if chances else b"null"


def _call(call: Call) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _output(text: str) -> Any:
    if deeper(text.encode(), MAX_DEPTH):
        return text
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return text
