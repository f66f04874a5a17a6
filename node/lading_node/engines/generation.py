"""One request against a language model, step by step: the same for the engine's process and for simulation.

Whoever drives a piece of work calls `step` (one forward pass at most), so it can interleave several and stop between
steps, and `take` to get the events so far. Answers that are midway can take their steps `together`, by one pass. Every
failure becomes a `Failed` event; nothing is raised.
"""

from collections.abc import Callable, Iterator, Sequence
from math import inf
from typing import Protocol

import numpy as np

from lading_node.core.chances import chance
from lading_node.core.sampler import EXACT, TOLERANT, choose
from lading_node.core.shaping import Shaper
from lading_node.core.sketch import States, directions, project
from lading_node.core.stops import OutputText
from lading_node.engines.errors import EngineError, one_line
from lading_node.engines.model import Advance, Context, LanguageModel, margins, retraced, shaper_of
from lading_node.engines.port import Embed, Failed, Finished, Generate, Run, Score, Scored, Started, Traced
from lading_node.engines.rich import least_tokens, prompt_ids
from lading_node.engines.wire import FromEngine, Vector, is_last
from lading_protocol.messages import Chance, ChatRequest, RichChat
from lading_protocol.transcript import prompt_hash

TRACED_POSITIONS = 8192
# Tokens whose chances always fit into one frame.
WEIGHED_TOKENS = 64
# Above what honest arithmetic of any numeric class differs by, below what a guess gets away with.
RESUME_SLACK = 0.5


class Work(Protocol):
    """A request that runs. `made` counts its output tokens so far; `done` is set with the last event."""

    made: int
    done: bool

    def step(self) -> bool:
        """Go on by at most one forward pass. True when there is news that should not wait."""
        ...

    def take(self) -> list[FromEngine]:
        """The events since the last take; tokens made since then are one Run."""
        ...


class Generation:
    """One attempt at a chat; see port.Engine.generate. `made` counts the tokens of this attempt."""

    def __init__(self, model: LanguageModel, order: Generate, context: int) -> None:
        self._model = model
        self._order = order
        self._context = context
        request = order.request
        assert isinstance(request, ChatRequest)
        self._request = request
        self._sampler = request.sampler
        self._ends = frozenset(model.ends)
        self._watching = bool(request.stop)
        self._last = request.max_tokens - 1
        self._text = OutputText(model.pieces, model.ends, request.stop, request.max_tokens)
        self._prompt: list[int] | None = None
        self._state: Context | None = None
        self._shaper: Shaper | None = None
        self._at = len(order.emitted)
        self._token = 0
        self._fresh: list[int] = []
        self._logprobs = request.logprobs if isinstance(request, RichChat) else 0
        self._chances: list[Chance] = []
        self._along = directions(order.job, model.states) if order.job and model.states else None
        self._states: list[States] = []
        self._events: list[FromEngine] = []
        self.made = 0
        self.done = False

    def step(self) -> bool:
        try:
            if self._state is not None:
                self._state.append(self._token)
                return self._choose(self._state)
            if self._prompt is None:
                self._begin()
                return True
            ids = [*self._prompt, *self._order.emitted]
            self._state = self._model.open(ids, self._last + 1 - self._at)
            self._trace(self._state)
            return self._choose(self._state)
        except Exception as error:
            return self._failed(error)

    def _advanced(self, state: Context, fault: Exception | None) -> bool:
        """The token of the last step was appended to `state`, by a pass that others shared, or could not be."""
        try:
            return self._choose(state) if fault is None else self._failed(fault)
        except Exception as error:
            return self._failed(error)

    def _failed(self, error: Exception) -> bool:
        self._end(as_failed(self._order.id, error))
        return True

    @property
    def midway(self) -> bool:
        """Whether the next step appends the token that was chosen last."""
        return self._state is not None

    def take(self) -> list[FromEngine]:
        self._settle()
        events, self._events = self._events, []
        return events

    def _begin(self) -> None:
        """Render, check, rebuild the text state of earlier attempts; the forward passes come with later steps."""
        order = self._order
        prompt = _prompt(self._model, self._request, order.emitted, self._context)
        self._text.replay(order.emitted)
        if self._text.count < self._at:
            why = f"The emitted tokens go on after the answer's end at {self._text.count}."
            raise EngineError("invalid_request", why)
        self._shaper = shaper_of(self._model, self._sampler, prompt, order.emitted)
        worst = max(margins(self._model, prompt, order.emitted, 0, self._sampler), default=0.0)
        if worst > RESUME_SLACK:
            # Whoever could make tokens up would get the prompt's work for nothing, and a host must not sign for an
            # answer that another model began.
            why = f"The emitted tokens are not what this agent gives for the request (off by {worst:.3g} logits)."
            raise EngineError("invalid_request", why)
        self._events.append(Started(order.id, len(prompt), prompt_hash(prompt)))
        self._prompt = prompt
        if self._text.finish:
            self._end(Finished(order.id, self._text.finish, self._at))

    def _choose(self, state: Context) -> bool:
        at = self._at
        logits = state.logits()
        token = self._token = choose(logits, at, self._sampler, self._shaper)
        if self._shaper is not None:
            self._shaper.push(token)
        self._fresh.append(token)
        if self._along is not None:
            self._states.append(state.states()[-1])
        self._at = at + 1
        self.made += 1
        if self._logprobs:
            self._chances.append(chance(logits, token, self._logprobs - 1, self._model.pieces))
            if len(self._chances) == WEIGHED_TOKENS:
                self._settle()
        # Text is worked out only when somebody takes it, unless this token could end the answer.
        if self._watching or at == self._last or token in self._ends:
            self._settle()
            if self._text.finish:
                self._end(Finished(self._order.id, self._text.finish, self._at))
                return True
        return self.made == 1

    def _trace(self, state: Context) -> None:
        """The sketch of what comes before the first output token, in pieces that fit into a message."""
        if self._along is None:
            return
        rows = state.states()[:-1]
        for at in range(0, max(1, len(rows)), TRACED_POSITIONS):
            self._events.append(Traced(self._order.id, project(rows[at : at + TRACED_POSITIONS], self._along)))

    def _settle(self) -> None:
        if self._fresh:
            text = "".join([self._text.push(token) for token in self._fresh])
            sketch = project(np.stack(self._states), self._along) if self._along is not None else b""
            first, ids, chances = self._at - len(self._fresh), tuple(self._fresh), tuple(self._chances)
            self._events.append(Run(self._order.id, first, ids, text, sketch, chances))
            self._fresh.clear()
            self._chances.clear()
            self._states.clear()

    def _end(self, event: Finished | Failed) -> None:
        self._settle()
        self._events.append(event)
        self._state = None  # its memory is another's from now on
        self.done = True


def together(advance: Advance, works: Sequence[Generation]) -> bool:
    """A step of each of these, which are midway, by as few passes as `advance` makes. True as for a step."""
    contexts = [work._state for work in works if work._state is not None]
    try:
        faults = advance(contexts, [work._token for work in works])
    except Exception as error:
        faults = [error] * len(works)
    news = [work._advanced(context, fault) for work, context, fault in zip(works, contexts, faults, strict=True)]
    return any(news)


class Steps:
    """Work whose every step is an event by itself, up to one that is the last (wire.is_last)."""

    def __init__(self, events: Iterator[FromEngine]) -> None:
        self._source = events
        self._events: list[FromEngine] = []
        self.made = 0
        self.done = False

    def step(self) -> bool:
        event = next(self._source)
        self._events.append(event)
        self.done = is_last(event)
        return True

    def take(self) -> list[FromEngine]:
        events, self._events = self._events, []
        return events


def score(model: LanguageModel, order: Score, context: int) -> Scored | Failed:
    """Margins and the stop rules' view of given tokens; see port.Scored."""
    try:
        request = order.request
        assert isinstance(request, ChatRequest)
        if order.first > len(order.emitted):
            raise EngineError("invalid_request", f"Scoring begins at {order.first}, after the last token.")
        prompt = _prompt(model, request, order.emitted[: order.first], context)
        if any(not 0 <= token < model.vocab for token in order.emitted[order.first :]):
            # No model says such a token, so there is nothing to re-run: it is infinitely far off.
            far = tuple(0.0 if 0 <= token < model.vocab else inf for token in order.emitted[order.first :])
            return Scored(order.id, len(prompt), prompt_hash(prompt), far, "", 0)
        text = OutputText(model.pieces, model.ends, request.stop, request.max_tokens)
        text.replay(order.emitted)
        slack = EXACT if order.exact else TOLERANT
        found, sketch = retraced(model, prompt, order.emitted, order.first, request.sampler, order.job, slack)
        ended = text.count if text.finish else 0
        return Scored(order.id, len(prompt), prompt_hash(prompt), found, text.finish, ended, sketch)
    except Exception as error:
        return as_failed(order.id, error)


def embed(one: Callable[[str], tuple[bytes, int]], order: Embed) -> Iterator[FromEngine]:
    """One event an input; `one` gives the vector of a text and its number of tokens."""
    inputs = order.request.inputs
    try:
        for at, text in enumerate(inputs):
            vector, tokens = one(text)
            yield Vector(order.id, vector, tokens, len(inputs) - at - 1)
    except Exception as error:
        yield as_failed(order.id, error)


def _prompt(model: LanguageModel, request: ChatRequest, emitted: Sequence[int], context: int) -> list[int]:
    """The prompt ids, after all that can be refused has been looked at."""
    if len(emitted) > request.max_tokens:
        raise EngineError("invalid_request", f"{len(emitted)} tokens are emitted of at most {request.max_tokens}.")
    if wrong := [token for token in emitted if not 0 <= token < model.vocab]:
        raise EngineError("invalid_request", f"The emitted token {wrong[0]} is not in the vocabulary of {model.vocab}.")
    least = least_tokens(model, request)
    if least + request.max_tokens > context:
        raise _too_long(f"at least {least}", request.max_tokens, context)
    prompt = prompt_ids(model, request)
    if not prompt:
        raise EngineError("invalid_request", "The prompt is empty.")
    if len(prompt) + request.max_tokens > context:
        raise _too_long(str(len(prompt)), request.max_tokens, context)
    return prompt


def _too_long(prompt: str, output: int, context: int) -> EngineError:
    return EngineError(
        "context_exceeded",
        f"The prompt has {prompt} tokens and max_tokens is {output}; the agent's context is {context} tokens.",
        hint="Shorten the messages or lower max_tokens.",
    )


def as_failed(id: str, error: Exception) -> Failed:
    """Foreign errors, told apart by whom they blame."""
    if isinstance(error, EngineError):
        return error.as_event(id)
    if isinstance(error, MemoryError):
        return EngineError("resource_exhausted", "The engine ran out of memory.").as_event(id)
    if isinstance(error, ValueError):
        return EngineError("agent_error", f"The model's output cannot be used: {one_line(error)}").as_event(id)
    return EngineError("engine_error", f"The engine failed: {type(error).__name__}: {one_line(error)}").as_event(id)
