"""The one error of the engines: loading raises it. What fails later is a `Failed` value, made of one of these."""

from collections.abc import Sequence

from lading_node.core.asked import extras
from lading_node.engines.port import Failed, FailureCode
from lading_protocol.errors import LadingError, one_line
from lading_protocol.messages import ChatRequest, RichChat

__all__ = ["EngineError", "check_extras", "check_fit", "one_line"]

_HINTS: dict[FailureCode, str] = {
    "invalid_package": "Fetch the package again; if it stays so, the publisher must correct it.",
    "engine_error": "Look at the engine's last words in the node's log.",
    "engine_died": "Look at the engine's last words in the node's log.",
    "resource_exhausted": "Give the agent more memory, or serve a smaller one.",
    "timeout": "Give it more time, or serve a smaller agent.",
    "agent_error": "Tell the agent's publisher.",
    "busy": "Try again shortly.",
}


class EngineError(LadingError):
    """An engine could not be started, or a step inside it failed with a reason to pass on."""

    code = "engine_error"

    def __init__(self, code: FailureCode, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=_HINTS.get(code, "") if hint is None else hint, code=code)
        self.failure: FailureCode = code

    def as_event(self, id: str) -> Failed:
        return Failed(id, self.failure, self.message, self.hint)


def check_extras(request: ChatRequest, taken: Sequence[str], who: str) -> None:
    """Raises EngineError for what `who` would not honour: nothing that changes an answer is silently left out."""
    asked = extras(request.sampler)
    if isinstance(request, RichChat):
        beside = {"tools": request.tools or request.turns, "logprobs": request.logprobs, "bare prompt": request.prompt}
        asked += tuple(name for name, value in beside.items() if value)
    lacking = [name for name in asked if name not in taken]
    if lacking:
        verb = "takes no" if len(lacking) == 1 else "takes none of"
        raise EngineError("invalid_request", f"{who} {verb} {', '.join(lacking)}.", hint="Leave it out.")


def check_fit(prompt: int, most: int, context: int) -> None:
    """Raises EngineError when so many tokens do not fit the agent's context."""
    if prompt + most > context:
        raise EngineError(
            "context_exceeded",
            f"The request has {prompt} tokens and max_tokens is {most}; the agent's context is {context} tokens.",
            hint="Shorten the input or lower max_tokens.",
        )
