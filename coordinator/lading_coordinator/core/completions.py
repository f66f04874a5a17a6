"""The dialect of the older completions: text that goes on from a prompt, without any chat around it."""

from collections.abc import Sequence
from typing import Any

from lading_coordinator.core.answer import Bill, lading_facts, usage
from lading_coordinator.core.dialect import DONE, FINISH, Answer, Voice, broken, encode
from lading_coordinator.errors import ApiError
from lading_protocol.messages import Chance
from lading_protocol.receipts import Finish


class CompletionDialect:
    """One reply with `choices` answers, those to the first prompt first."""

    def __init__(self, voice: Voice, choices: int, *, include_usage: bool = False) -> None:
        self._head = voice.head("cmpl-", "text_completion")
        self._usage = include_usage
        self._close = b',"usage":null}\n\n' if include_usage else b"}\n\n"
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
        return self._chunk(self._choice(index, text, told, None))

    def finished(self, index: int, finish: Finish) -> bytes:
        """The last of them is held back: the bill stands in it unless usage has an event of its own."""
        event = self._chunk(self._choice(index, "", None, FINISH[finish]))
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
            return b'%b,"lading":%b}\n\n%b' % (self._last.removesuffix(b"}\n\n"), facts, DONE)
        told = self._last, self._head, usage(bill.prompt_tokens, bill.output_tokens), facts, DONE
        return b'%bdata: %b,"choices":[],"usage":%b,"lading":%b}\n\n%b' % told

    def broken(self, error: ApiError) -> bytes:
        return self._last + broken(error)

    def whole(self, answers: Sequence[Answer], bill: Bill) -> bytes:
        choices = [
            self._choice(index, answer.text, _listed(answer.chances, 0), FINISH[answer.finish])
            for index, answer in enumerate(answers)
        ]
        told = b",".join(choices), usage(bill.prompt_tokens, bill.output_tokens), lading_facts(bill)
        return b'%b,"choices":[%b],"usage":%b,"lading":%b}' % (self._head, *told)

    def _chunk(self, choice: bytes) -> bytes:
        return b'data: %b,"choices":[%b]%b' % (self._head, choice, self._close)

    def _choice(self, index: int, text: str, told: dict[str, Any] | None, finish: str | None) -> bytes:
        return encode({"text": text, "index": index, "logprobs": told, "finish_reason": finish})


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
