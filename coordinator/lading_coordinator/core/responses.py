"""The dialect of the Responses API: items, and a stream of named events that build them up."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from lading_coordinator.core.answer import Bill, lading_facts
from lading_coordinator.core.calls import Argued, Called, CallReader, News, Said
from lading_coordinator.core.dialect import Answer, Call, Voice, encode, listed, read_calls, reader_of
from lading_coordinator.core.tools import Tools
from lading_coordinator.errors import ApiError
from lading_protocol.messages import Chance
from lading_protocol.receipts import Finish


class ResponseDialect:
    """One answer. `echo` is what the reply repeats of the request."""

    def __init__(self, voice: Voice, echo: Mapping[str, Any], tools: Tools | None = None) -> None:
        self._voice = voice
        self._echo = echo
        self._tools = tools
        self._reader: CallReader | None = reader_of(tools) if tools is not None else None
        self._number = 0
        self._items: list[dict[str, Any]] = []
        self._open = False
        self._finish = Finish.STOP

    def begin(self) -> bytes:
        response = self._response("in_progress", [])
        return self._event("response.created", response=response) + self._event(
            "response.in_progress", response=response
        )

    def piece(self, index: int, text: str, chances: tuple[Chance, ...]) -> bytes:
        if self._reader is not None:
            return self._told(self._reader.feed(text), chances)
        return self._say(text, chances) if text or chances else b""

    def finished(self, index: int, finish: Finish) -> bytes:
        self._finish = finish
        told = self._told(self._reader.close(), ()) if self._reader is not None else b""
        if not self._items:
            told += self._begin(self._message("", ()))
        return told + self._close(cut=finish is Finish.LENGTH)

    @property
    def keeps(self) -> Sequence[str]:
        return ("text", "chances")

    def told(self, events: int) -> None:
        self._number = events

    def end(self, bill: Bill) -> bytes:
        response = self._final(self._items, self._finish, bill)
        return self._event(f"response.{response['status']}", response=response)

    def broken(self, error: ApiError) -> bytes:
        """Both what the SDKs raise, `error`, and the event that OpenAI documents, in one."""
        facts = {"message": str(error), "code": error.code, "param": error.param}
        return self._event("error", **facts, error={**facts, "type": error.kind})

    def whole(self, answers: Sequence[Answer], bill: Bill) -> bytes:
        (answer,) = answers
        text, calls = read_calls(answer, self._tools, self._call_id(""))
        cut = answer.finish is Finish.LENGTH
        if text or not calls:
            self._items.append(self._message(text, answer.chances))
        for call in calls:
            self._items.append(self._called(call))
        for item in self._items:
            item["status"] = "incomplete" if cut and item is self._items[-1] else "completed"
        return encode(self._final(self._items, answer.finish, bill))

    # Items of a stream

    def _told(self, news: Sequence[News], chances: tuple[Chance, ...]) -> bytes:
        events = []
        for one in news:
            match one:
                case Said(text):
                    events.append(self._say(text, chances))
                    chances = ()
                case Called(at, name):
                    events.append(self._close() + self._begin(self._called(Call(self._call_id(at), name))))
                case Argued(_, text):
                    self._items[-1]["arguments"] += text
                    events.append(self._of_item("response.function_call_arguments.delta", delta=text))
        return b"".join(events)

    def _say(self, text: str, chances: tuple[Chance, ...]) -> bytes:
        before = b""
        if not self._open or self._items[-1]["type"] != "message":
            before = self._close() + self._begin(self._message("", ()))
        told = listed(chances)
        part = self._items[-1]["content"][0]
        part["text"] += text
        part["logprobs"] += told
        return before + self._of_text("response.output_text.delta", delta=text, logprobs=told)

    def _begin(self, item: dict[str, Any]) -> bytes:
        self._items.append(item)
        self._open = True
        shown = item | ({"content": []} if item["type"] == "message" else {})
        told = self._event("response.output_item.added", output_index=len(self._items) - 1, item=shown)
        if item["type"] == "message":
            told += self._of_text("response.content_part.added", part=item["content"][0])
        return told

    def _close(self, *, cut: bool = False) -> bytes:
        """The end of the item that is open, if one is."""
        if not self._open:
            return b""
        self._open = False
        item = self._items[-1]
        item["status"] = "incomplete" if cut else "completed"
        if item["type"] == "message":
            part = item["content"][0]
            told = self._of_text("response.output_text.done", text=part["text"], logprobs=part["logprobs"])
            told += self._of_text("response.content_part.done", part=part)
        else:
            done = "response.function_call_arguments.done"
            told = self._of_item(done, name=item["name"], arguments=item["arguments"])
        return told + self._event("response.output_item.done", output_index=len(self._items) - 1, item=item)

    # Shapes

    def _message(self, text: str, chances: Sequence[Chance]) -> dict[str, Any]:
        part = {"type": "output_text", "text": text, "annotations": [], "logprobs": listed(chances)}
        id = f"msg_{self._voice.name}{len(self._items)}"
        return {"type": "message", "id": id, "status": "in_progress", "role": "assistant", "content": [part]}

    def _called(self, call: Call) -> dict[str, Any]:
        return {
            "type": "function_call",
            "id": f"fc_{self._voice.name}{len(self._items)}",
            "call_id": call.id,
            "name": call.name,
            "arguments": call.arguments,
            "status": "in_progress",
        }

    def _call_id(self, at: int | str) -> str:
        return f"call_{self._voice.name[:20]}_{at}"

    def _final(self, items: list[dict[str, Any]], finish: Finish, bill: Bill) -> dict[str, Any]:
        spent = {
            "input_tokens": bill.prompt_tokens,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": bill.output_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": bill.prompt_tokens + bill.output_tokens,
        }
        cut = finish is Finish.LENGTH
        response = self._response("incomplete" if cut else "completed", items)
        why = {"reason": "max_output_tokens"} if cut else None
        return response | {"incomplete_details": why, "usage": spent, "lading": msgspec.Raw(lading_facts(bill))}

    def _response(self, status: str, items: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": f"resp_{self._voice.name}",
            "object": "response",
            "created_at": self._voice.created,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": None,
            "model": self._voice.model,
            "output": items,
            "previous_response_id": None,
            "reasoning": {"effort": None, "summary": None},
            "store": False,
            "truncation": "disabled",
            "usage": None,
            **self._echo,
        }

    # Events

    def _of_text(self, kind: str, **facts: Any) -> bytes:
        return self._of_item(kind, content_index=0, **facts)

    def _of_item(self, kind: str, **facts: Any) -> bytes:
        return self._event(kind, item_id=self._items[-1]["id"], output_index=len(self._items) - 1, **facts)

    def _event(self, kind: str, **facts: Any) -> bytes:
        number = self._number
        self._number += 1
        tree = {"type": kind, "sequence_number": number, **facts}
        return b"event: " + kind.encode() + b"\ndata: " + encode(tree) + b"\n\n"
