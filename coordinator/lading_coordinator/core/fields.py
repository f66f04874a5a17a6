"""Reads one field of an OpenAI request at a time; what is wrong is an ApiError that names the field.

A parameter that would change the answer is never silently ignored: it is either honoured, at its neutral value, or 400.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import msgspec

from lading.core.options import Sampling, read_bias, read_format
from lading.errors import BadRequest
from lading_coordinator.errors import ApiError, bad_request
from lading_protocol.messages import MAX_FRAME, MAX_TOKENS
from lading_protocol.nesting import deeper

T = TypeVar("T")

MAX_INPUTS = 256
MAX_STOPS = 4
MAX_DEPTH = 128
MAX_TEXT = MAX_FRAME // 2
_decode = msgspec.json.Decoder().decode

IGNORED: Final = frozenset({"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"})
"""Parameters that say nothing about the answer."""

NEUTRAL: Final[dict[str, tuple[Any, ...]]] = {
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "reasoning_effort": ("none",),
    "verbosity": ("medium",),
    "web_search_options": (),
}
"""Parameters that this network cannot honour, with the values at which they ask for nothing."""


def read_object(body: bytes) -> dict[str, Any]:
    if deeper(body, MAX_DEPTH):
        raise bad_request(f"The body nests more than {MAX_DEPTH} deep.", code="malformed_json")
    try:
        tree = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise bad_request(
            f"The body is not valid JSON: {error}.", code="malformed_json", hint="Send one JSON object in UTF-8."
        ) from None
    if not isinstance(tree, dict):
        raise bad_request("The body must be a JSON object.", code="malformed_json")
    return tree


def check_known(tree: dict[str, Any], known: frozenset[str], neutral: Mapping[str, tuple[Any, ...]] = NEUTRAL) -> None:
    for name, value in tree.items():
        if name in known or name in IGNORED or value is None:
            continue
        if name not in neutral:
            raise bad_request(
                f"Unknown parameter: {name[:64]!r}.", param=name[:64], code="unknown_parameter", hint="Leave it out."
            )
        if not any(value == one for one in neutral[name]):
            raise bad_request(
                f"'{name}' is not supported by this network.",
                param=name,
                code="unsupported_parameter",
                hint="Leave it out.",
            )


def read_model(tree: dict[str, Any]) -> str:
    model = tree.get("model")
    if not isinstance(model, str) or not 0 < len(model) <= 256:
        raise bad_request(
            "'model' must name an agent.", param="model", code="missing_model", hint="See GET /v1/models."
        )
    return model


def read_flag(tree: dict[str, Any], name: str) -> bool:
    value = tree.get(name)
    if value is not None and not isinstance(value, bool):
        raise bad_request(f"'{name}' must be true or false.", param=name, code="invalid_type")
    return bool(value)


def read_whole(tree: dict[str, Any], name: str, low: int, high: int) -> int | None:
    value = tree.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise bad_request(f"'{name}' must be a whole number.", param=name, code="invalid_type")
    if not low <= value <= high:
        raise bad_request(f"'{name}' must be between {low} and {high}, got {value}.", param=name)
    return value


def read_number(tree: dict[str, Any], name: str, low: float, high: float, usual: float = 1.0) -> float:
    value = tree.get(name)
    if value is None:
        return usual
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise bad_request(f"'{name}' must be a number.", param=name, code="invalid_type")
    if not low <= value <= high:
        raise bad_request(f"'{name}' must be between {low:g} and {high:g}, got {value:g}.", param=name)
    return float(value)


def read_top_p(tree: dict[str, Any]) -> float:
    value = read_number(tree, "top_p", 0.0, 1.0)
    if value == 0.0:
        raise bad_request(
            "'top_p' must be above 0.", param="top_p", hint="For the most likely token use temperature 0."
        )
    return value


def read_sampling(tree: dict[str, Any], shape: str = "response_format") -> Sampling:
    """`top_k`, `min_p` and `repetition_penalty` are no parameters of OpenAI's, but of most servers with its API.

    `shape` is what the request calls its `response_format`.
    """
    return Sampling(
        temperature=read_number(tree, "temperature", 0.0, 2.0),
        top_p=read_top_p(tree),
        top_k=read_whole(tree, "top_k", 0, 2**20) or 0,
        min_p=read_number(tree, "min_p", 0.0, 1.0, 0.0),
        presence_penalty=read_number(tree, "presence_penalty", -2.0, 2.0, 0.0),
        frequency_penalty=read_number(tree, "frequency_penalty", -2.0, 2.0, 0.0),
        repetition_penalty=read_number(tree, "repetition_penalty", 0.5, 2.0),
        logit_bias=_shared(read_bias, tree, "logit_bias", {}),
        grammar=_shared(read_format, tree, "response_format", {"type": "text"}, shape),
    )


def _shared(read: Callable[[Any], T], tree: dict[str, Any], name: str, usual: Any, shown: str = "") -> T:
    """A field that the client library reads in the same way, shown to the caller by its own name for it."""
    value = tree.get(name)
    try:
        return read(usual if value is None else value)
    except BadRequest as error:
        raise bad_request(error.message.replace(name, shown or name), param=shown or name, hint=error.hint) from None


def read_stops(value: Any) -> tuple[str, ...]:
    stops = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value
    if stops is None:
        return ()
    if not isinstance(stops, tuple) or len(stops) > MAX_STOPS:
        raise bad_request(f"'stop' is a string or a list of at most {MAX_STOPS} strings.", param="stop")
    for stop in stops:
        if not isinstance(stop, str) or not 0 < len(stop) <= 256:
            raise bad_request("Each entry of 'stop' is a string of 1 to 256 characters.", param="stop")
    return stops


def read_inputs(value: Any) -> tuple[str, ...]:
    inputs = [value] if isinstance(value, str) else value
    if not isinstance(inputs, list) or not 0 < len(inputs) <= MAX_INPUTS:
        raise bad_request(f"'input' must be a string or a list of 1 to {MAX_INPUTS} strings.", param="input")
    for i, text in enumerate(inputs):
        if not isinstance(text, str):
            raise bad_request(
                f"'input[{i}]' must be a string; lists of token numbers are not supported.",
                param=f"input[{i}]",
                code="invalid_type",
            )
        if not text:
            raise bad_request(f"'input[{i}]' is empty.", param=f"input[{i}]")
    if sum(map(size_of, inputs)) > MAX_TEXT:
        raise too_much("input")
    return tuple(inputs)


def read_prompts(value: Any) -> tuple[str | tuple[int, ...], ...]:
    """One prompt or several, each as text or as token ids."""
    several = isinstance(value, list) and bool(value) and not isinstance(value[0], int)
    prompts = value if several else [value]
    if len(prompts) > MAX_INPUTS:
        raise bad_request(f"'prompt' is a list of at most {MAX_INPUTS} prompts.", param="prompt")
    found = tuple(_prompt(one, f"prompt[{i}]" if several else "prompt") for i, one in enumerate(prompts))
    if sum(size_of(one) if isinstance(one, str) else len(one) for one in found) > MAX_TEXT:
        raise too_much("prompt")
    return found


def _prompt(value: Any, where: str) -> str | tuple[int, ...]:
    if isinstance(value, str) and value:
        return value
    is_ids = isinstance(value, list) and 0 < len(value) <= MAX_TOKENS
    if not is_ids or not all(type(one) is int and 0 <= one < 2**32 for one in value):
        raise bad_request(f"'{where}' must be a text or a list of token ids, and not empty.", param=where)
    return tuple(value)


def size_of(text: str) -> int:
    """In bytes, as it goes to a host."""
    return len(text) if text.isascii() else len(text.encode())


def too_much(param: str) -> ApiError:
    return bad_request(
        f"'{param}' holds more than {MAX_TEXT} bytes of text.", param=param, code="too_long", hint="Send less text."
    )
