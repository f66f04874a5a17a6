"""One request against a language model, as a sequence of steps: the same for the engine's process and for simulation.

A generation is an iterator of events; each `next` is at most one forward pass, so whoever drives it can interleave
several and stop between steps. Every failure ends it with a `Failed` event; nothing is raised.
"""

from collections.abc import Iterator, Sequence

from lading_node.core.sampler import choose
from lading_node.core.stops import OutputText
from lading_node.engines.errors import EngineError
from lading_node.engines.model import LanguageModel, margins
from lading_node.engines.port import Event, Failed, Finished, Generate, Run, Score, Scored, Started
from lading_protocol.messages import ChatRequest
from lading_protocol.transcript import prompt_hash


def generate(model: LanguageModel, order: Generate, context: int) -> Iterator[Event]:
    """The events of one attempt; see port.Engine.generate."""
    try:
        yield from _generate(model, order, context)
    except Exception as error:
        yield as_failed(order.id, error)


def _generate(model: LanguageModel, order: Generate, context: int) -> Iterator[Event]:
    request = order.request
    prompt = _prompt(model, request, order.emitted, context)
    text = OutputText(model.pieces, model.ends, request.stop, request.max_tokens)
    text.replay(order.emitted)
    if text.count < len(order.emitted):
        raise EngineError("invalid_request", f"The emitted tokens go on after the answer's end at {text.count}.")
    yield Started(order.id, len(prompt), prompt_hash(prompt))
    if not text.finish:
        state = model.open([*prompt, *order.emitted], request.max_tokens - len(order.emitted))
    while not text.finish:
        at = text.count
        token = choose(state.logits(), at, request.sampler)
        yield Run(order.id, at, (token,), text.push(token))
        if not text.finish:
            state.append(token)
    yield Finished(order.id, text.finish, text.count)


def score(model: LanguageModel, order: Score, context: int) -> Scored | Failed:
    """Margins and the stop rules' view of given tokens; see port.Scored."""
    try:
        request = order.request
        prompt = _prompt(model, request, order.emitted, context)
        if order.first > len(order.emitted):
            raise EngineError("invalid_request", f"Scoring begins at {order.first}, after the last token.")
        text = OutputText(model.pieces, model.ends, request.stop, request.max_tokens)
        text.replay(order.emitted)
        found = margins(model, prompt, order.emitted, order.first, request.sampler)
        ended = text.count if text.finish else 0
        return Scored(order.id, len(prompt), prompt_hash(prompt), found, text.finish, ended)
    except Exception as error:
        return as_failed(order.id, error)


def _prompt(model: LanguageModel, request: ChatRequest, emitted: Sequence[int], context: int) -> list[int]:
    """The prompt ids, after all that can be refused has been looked at."""
    if len(emitted) > request.max_tokens:
        raise EngineError("invalid_request", f"{len(emitted)} tokens are emitted of at most {request.max_tokens}.")
    if wrong := [token for token in emitted if token >= model.vocab]:
        raise EngineError("invalid_request", f"The emitted token {wrong[0]} is not in the vocabulary of {model.vocab}.")
    least = model.least_tokens(request.messages)
    if least + request.max_tokens > context:
        raise _too_long(f"at least {least}", request.max_tokens, context)
    prompt = model.prompt(request.messages)
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
        return EngineError("agent_error", f"The model's output cannot be used: {str(error)[:200]}").as_event(id)
    return EngineError("engine_error", f"The engine failed: {type(error).__name__}: {str(error)[:200]}").as_event(id)
