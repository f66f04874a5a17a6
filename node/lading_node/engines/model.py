"""What an engine's process asks of a language model: prefill, the next fp32 logits, append; and how one is scored.

`Context` is one sequence being written. The models themselves are in llm_onnx (real) and toy (for simulation).
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from lading_node.core.asked import bias_fault, shapes
from lading_node.core.mask import Masks
from lading_node.core.sampler import TOLERANT, Slack, margin
from lading_node.core.shaping import Shaper
from lading_node.core.sketch import States, directions, project
from lading_node.core.vocabulary import Vocabulary
from lading_node.engines.errors import EngineError
from lading_protocol.errors import BadSchema
from lading_protocol.messages import Message, Sampler

Logits = NDArray[np.float32]


class Context(Protocol):
    def logits(self) -> Logits:
        """The fp32 row that chooses the next token, shape (vocab,)."""
        ...

    def states(self) -> States:
        """What the last norm gave for the ids of the last forward pass, shape (ids, states); `logits` are the last
        row's. Only asked of a model that has states."""
        ...

    def append(self, token: int) -> None: ...


# Appends to each context the token beside it, by as few passes as can be; says of each what went wrong, if it did.
Advance = Callable[[Sequence[Context], Sequence[int]], list[Exception | None]]


class LanguageModel(Protocol):
    @property
    def engine(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def vocab(self) -> int: ...

    @property
    def states(self) -> int:
        """The width of a state, 0 for a model that does not show its states."""
        ...

    @property
    def ends(self) -> tuple[int, ...]: ...

    @property
    def pieces(self) -> Sequence[bytes]:
        """The bytes of each id."""
        ...

    def least_tokens(self, messages: Sequence[Message]) -> int:
        """A cheap lower bound of the prompt's tokens."""
        ...

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """The prompt ids. Raises EngineError."""
        ...

    def plain(self, text: str) -> list[int]:
        """The ids of a text that is a prompt by itself, without chat markup."""
        ...

    def with_tools(self, turns: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]]) -> list[int] | None:
        """The prompt ids where the markup knows tools and has calls written as JSON in <tool_call>, else None.

        `turns` and `tools` are as core/tools reads them. Raises EngineError.
        """
        ...

    def open(self, ids: Sequence[int], room: int) -> Context:
        """Prefill `ids`, leaving space for `room` more."""
        ...

    @property
    def advance(self) -> Advance | None:
        """None where every context needs a pass of its own."""
        ...

    def rows(self, ids: Sequence[int], count: int) -> Logits:
        """The logits after each of the last `count` ids, by one prefill: shape (count, vocab)."""
        ...

    def traced(self, ids: Sequence[int], count: int) -> tuple[Logits, States]:
        """`rows`, and the states of all `ids`, by the same prefill. Only asked of a model that has states."""
        ...


# What was worked out for grammars lives as long as its model.
_masks: WeakKeyDictionary[LanguageModel, Masks] = WeakKeyDictionary()


def shaper_of(
    model: LanguageModel, sampler: Sampler, prompt: Sequence[int], emitted: Sequence[int] = ()
) -> Shaper | None:
    """What stands between the logits after these ids and the choice, None where nothing does. Raises EngineError."""
    if not shapes(sampler):
        return None
    if why := bias_fault(sampler.bias, model.vocab):
        raise EngineError("invalid_request", why)
    guide = None
    if sampler.grammar:
        if model not in _masks:
            _masks[model] = Masks(Vocabulary(model.vocab, model.pieces, model.ends))
        try:
            guide = _masks[model].guide(sampler.grammar)
        except BadSchema as error:
            raise EngineError("invalid_request", error.message, hint=error.hint) from error
    shaper = Shaper(sampler, prompt, model.vocab, guide)
    for token in emitted:
        shaper.push(token)
    return shaper


def margins(
    model: LanguageModel,
    prompt: Sequence[int],
    emitted: Sequence[int],
    first: int,
    sampler: Sampler,
    slack: Slack = TOLERANT,
) -> tuple[float, ...]:
    """How far behind the sampler's choice each token of `emitted` from index `first` on is, in logits."""
    checked = emitted[first:]
    if not checked:
        return ()
    shaper = shaper_of(model, sampler, prompt, emitted[:first])
    rows = model.rows([*prompt, *emitted[:-1]], len(checked))
    return _behind(rows, checked, first, sampler, shaper, slack)


def retraced(
    model: LanguageModel,
    prompt: Sequence[int],
    emitted: Sequence[int],
    first: int,
    sampler: Sampler,
    job: bytes,
    slack: Slack = TOLERANT,
) -> tuple[tuple[float, ...], bytes]:
    """`margins`, and the sketch for `job` of all positions that were passed through."""
    checked = emitted[first:]
    if not checked or not job or not model.states:
        return margins(model, prompt, emitted, first, sampler, slack), b""
    shaper = shaper_of(model, sampler, prompt, emitted[:first])
    rows, states = model.traced([*prompt, *emitted[:-1]], len(checked))
    found = _behind(rows, checked, first, sampler, shaper, slack)
    return found, project(states, directions(job, model.states))


def _behind(
    rows: Logits, checked: Sequence[int], first: int, sampler: Sampler, shaper: Shaper | None, slack: Slack
) -> tuple[float, ...]:
    found = []
    for at, (row, token) in enumerate(zip(rows, checked, strict=True), first):
        found.append(margin(row, token, at, sampler, shaper, slack))
        if shaper is not None:
            shaper.push(token)
    return tuple(found)
