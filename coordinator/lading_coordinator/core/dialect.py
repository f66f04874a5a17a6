"""What a way of answering must be able to write: one answer or several, whole or as a stream of events. Pure.

Chats, completions and responses are dialects over the same jobs. The gateway knows this and no shape of any of them.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from lading_coordinator.core.answer import Bill, error_tree
from lading_coordinator.core.calls import Called, CallReader, News, Said
from lading_coordinator.core.tools import Tools
from lading_coordinator.errors import ApiError
from lading_protocol.ids import JobId
from lading_protocol.messages import Chance
from lading_protocol.receipts import Finish

FINISH = {Finish.STOP: "stop", Finish.LENGTH: "length", Finish.CANCELLED: "stop"}
DONE = b"data: [DONE]\n\n"
encode = msgspec.json.Encoder().encode


class Answer(msgspec.Struct, frozen=True):
    """A finished answer. `chances` has an entry for every token, or none."""

    text: str
    finish: Finish
    chances: tuple[Chance, ...] = ()


class Voice:
    """What every part of one reply repeats. `created` is Unix seconds, `name` what the ids of the reply are made of."""

    __slots__ = ("created", "fingerprint", "job", "model", "name")

    def __init__(self, job: JobId, created: int, model: str, fingerprint: str) -> None:
        self.job = job
        self.created = created
        self.model = model
        self.fingerprint = fingerprint
        self.name = job.hex()[:32]

    def head(self, prefix: str, kind: str) -> bytes:
        """What every object of the reply begins with, as JSON. `prefix` stands before its name."""
        model, printed = encode(self.model).decode(), encode(self.fingerprint).decode()
        ids = f'"id":"{prefix}{self.name}","object":"{kind}","created":{self.created}'
        return f'{{{ids},"model":{model},"system_fingerprint":{printed}'.encode()


class Dialect(Protocol):
    """`index` says which of several answers; each method gives bytes to be sent, perhaps none."""

    def begin(self) -> bytes:
        """Before the first piece of a stream."""
        ...

    def piece(self, index: int, text: str, chances: tuple[Chance, ...]) -> bytes: ...

    def finished(self, index: int, finish: Finish) -> bytes: ...

    @property
    def keeps(self) -> Sequence[str]:
        """Of "text" and "chances" of all pieces, what it must know of those before to go on with a stream."""
        ...

    def told(self, events: int) -> None:
        """So many events of this reply were sent before."""
        ...

    def end(self, bill: Bill) -> bytes:
        """After all answers have finished."""
        ...

    def broken(self, error: ApiError) -> bytes:
        """In place of the end, in a stream that has begun."""
        ...

    def whole(self, answers: Sequence[Answer], bill: Bill) -> bytes:
        """Everything at once."""
        ...


class Call(msgspec.Struct):
    """A call of a function as an answer has it."""

    id: str
    name: str
    arguments: str = ""


def read_calls(answer: Answer, tools: Tools | None, call_id: str) -> tuple[str, list[Call]]:
    """The words of a finished answer and the calls in it. Without tools there are words only."""
    if tools is None:
        return answer.text, []
    reader = reader_of(tools)
    words: list[str] = []
    calls: list[Call] = []
    for news in [*reader.feed(answer.text), *reader.close()]:
        match news:
            case Said(text):
                words.append(text)
            case Called(at, name):
                calls.append(Call(f"{call_id}{at}", name))
            case _:
                calls[-1].arguments += news.text
    return "".join(words), calls


def reader_of(tools: Tools) -> CallReader:
    return CallReader(tools.names, forced=bool(tools.grammar))


def data(tree: Any) -> bytes:
    """One event of a stream that has no name of its own."""
    return b"data: " + encode(tree) + b"\n\n"


def broken(error: ApiError) -> bytes:
    """OpenAI's SDK raises it. No end mark follows."""
    return data(error_tree(error))


def listed(chances: Sequence[Chance]) -> list[dict[str, Any]]:
    """An entry for every token, also for one without text, such as the one that ends an answer."""
    return [
        {**_told(one.logprob, one.piece), "top_logprobs": [_told(logprob, piece) for logprob, piece in one.top]}
        for one in chances
    ]


def _told(logprob: float, piece: bytes) -> dict[str, Any]:
    return {"token": piece.decode(errors="replace"), "logprob": logprob, "bytes": list(piece)}


__all__ = ["Answer", "Call", "Dialect", "News", "Voice"]
