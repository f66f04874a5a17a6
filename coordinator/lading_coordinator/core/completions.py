"""The dialect of the older completions: text that goes on from a prompt, without any chat around it."""

from collections.abc import Sequence
from typing import Any

from lading_coordinator.core.answer import Bill, lading_facts, usage
from lading_coordinator.core.dialect import DONE, FINISH, Answer, Voice, broken, data, encode
from lading_coordinator.errors import ApiError
from lading_protocol.messages import Chance
from lading_protocol.receipts import Finish


class CompletionDialect:
    """One reply with `choices` answers, those to the first prompt first."""

    def __init__(self, voice: Voice, choices: int, *, include_usage: bool = False) -> None:
        self._voice = voice
        self._usage = include_usage
        self._at = [0] * choices
        self._left = choices
        self._last = b""

    def begin(self) -> bytes:
        return b""

    def piece(self, index: int, text: str, chances: tuple[Chance, ...]) -> bytes:
        if not text and not chances:
            return b""
        told = _listed(chances, self._at[index])
        self._at[index] += sum(len(one) for one in told["tokens"]) if told else 0
        return data(self._chunk(self._choice(index, text, told, None)))

    def finished(self, index: int, finish: Finish) -> bytes:
        """The last of them is held back: the bill stands in it unless usage has an event of its own."""
        event = data(self._chunk(self._choice(index, "", None, FINISH[finish])))
        self._left -= 1
        if self._left:
            return event
        self._last = event
        return b""

    @property
    def keeps(self) -> Sequence[str]:
        return ("chances",)

    def told(self, events: int) -> None: ...

    def end(self, bill: Bill) -> bytes:
        facts = lading_facts(bill)
        if not self._usage:
            return self._last.removesuffix(b"}\n\n") + b',"lading":' + encode(facts) + b"}\n\n" + DONE
        spent = usage(bill.prompt_tokens, bill.output_tokens)
        return self._last + data(self._head() | {"choices": [], "usage": spent, "lading": facts}) + DONE

    def broken(self, error: ApiError) -> bytes:
        return self._last + broken(error)

    def whole(self, answers: Sequence[Answer], bill: Bill) -> bytes:
        choices = [
            self._choice(index, answer.text, _listed(answer.chances, 0), FINISH[answer.finish])
            for index, answer in enumerate(answers)
        ]
        spent = usage(bill.prompt_tokens, bill.output_tokens)
        return encode(self._head() | {"choices": choices, "usage": spent, "lading": lading_facts(bill)})

    def _head(self) -> dict[str, Any]:
        return {
            "id": f"cmpl-{self._voice.name}",
            "object": "text_completion",
            "created": self._voice.created,
            "model": self._voice.model,
            "system_fingerprint": self._voice.fingerprint,
        }

    def _chunk(self, choice: dict[str, Any]) -> dict[str, Any]:
        return self._head() | {"choices": [choice]} | ({"usage": None} if self._usage else {})

    def _choice(self, index: int, text: str, told: dict[str, Any] | None, finish: str | None) -> dict[str, Any]:
        return {"text": text, "index": index, "logprobs": told, "finish_reason": finish}


def _listed(chances: Sequence[Chance], at: int) -> dict[str, Any] | None:
    """Lists side by side, an entry for every token. The first begins at the character `at` of the answer."""
    if not chances:
        return None
    tokens = [one.piece.decode(errors="replace") for one in chances]
    offsets = []
    for token in tokens:
        offsets.append(at)
        at += len(token)
    tops = [{piece.decode(errors="replace"): logprob for logprob, piece in reversed(one.top)} for one in chances]
    return {
        "tokens": tokens,
        "token_logprobs": [one.logprob for one in chances],
        "top_logprobs": [dict(sorted(top.items(), key=lambda item: -item[1])) for top in tops],
        "text_offset": offsets,
    }
