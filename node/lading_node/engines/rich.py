"""The prompt of a chat that brings more than messages: tools, calls made before, or a prompt without any markup."""

from lading_node.core.tools import BadTools, tools_of, turns_of, written
from lading_node.engines.errors import EngineError
from lading_node.engines.model import LanguageModel
from lading_protocol.messages import ChatRequest, Message, RichChat

_NO_TOOLS = (
    "The chat template of this agent knows no tools, or has the model write calls in another form than JSON in "
    "<tool_call>, so the model cannot choose among them."
)


def least_tokens(model: LanguageModel, request: ChatRequest) -> int:
    """A cheap lower bound of the prompt's tokens."""
    given = request.prompt if isinstance(request, RichChat) else None
    if isinstance(given, str):
        return model.least_tokens([Message("user", given)])
    return len(given) if given is not None else model.least_tokens(request.messages)


def prompt_ids(model: LanguageModel, request: ChatRequest) -> list[int]:
    """Raises EngineError."""
    if not isinstance(request, RichChat):
        return model.prompt(request.messages)
    if request.prompt is not None:
        return _bare(model, request, request.prompt)
    if not request.tools and not request.turns:
        return model.prompt(request.messages)
    try:
        ids = model.with_tools(turns_of(request), tools_of(request))
        if ids is not None:
            return ids
        if request.tools and not request.sampler.grammar:
            raise EngineError("invalid_request", _NO_TOOLS, hint="Name the function in tool_choice, or send no tools.")
        return model.prompt(written(request))
    except BadTools as error:
        raise EngineError("invalid_request", str(error)) from error


def _bare(model: LanguageModel, request: RichChat, prompt: str | tuple[int, ...]) -> list[int]:
    if request.tools or request.turns or len(request.messages) > 1 or request.messages[0].content:
        raise EngineError("invalid_request", "A prompt without markup has no messages and no tools beside it.")
    if isinstance(prompt, str):
        return model.plain(prompt)
    if wrong := [token for token in prompt if token >= model.vocab]:
        why = f"The prompt's token {wrong[0]} is not in the vocabulary of {model.vocab}."
        raise EngineError("invalid_request", why)
    return list(prompt)
