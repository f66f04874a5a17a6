"""How an answer is asked for, by the names of OpenAI's API, and what that means to the sampler. Pure."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from lading.errors import BadRequest
from lading_protocol.errors import BadSchema
from lading_protocol.messages import Sampler
from lading_protocol.schema import ANY_OBJECT, read_schema

MAX_BIAS = 300
MAX_ID = 2**32 - 1
_FORMATS = "{'type': 'text'}, {'type': 'json_object'} or {'type': 'json_schema', 'json_schema': {...}}"
_Penalty = Annotated[float, Meta(ge=-2, le=2)]


class Options:
    """How an answer is made. `seed` makes it repeatable; temperature 0 always takes the likeliest token.

    `logit_bias` adds to the logits of token ids. `response_format` is OpenAI's: `{"type": "json_object"}`, or
    `{"type": "json_schema", "json_schema": {"schema": ...}}`; docs/protocol.md, section 6, has the schemas.
    """

    def __init__(
        self,
        max_tokens: int | None = None,
        temperature: float = 1.0,
        top_p: float = 1.0,
        stop: Sequence[str] = (),
        seed: int | None = None,
        *,
        top_k: int = 0,
        min_p: float = 0.0,
        presence_penalty: float = 0.0,
        frequency_penalty: float = 0.0,
        repetition_penalty: float = 1.0,
        logit_bias: Mapping[int, float] | None = None,
        response_format: Mapping[str, Any] | None = None,
    ) -> None:
        self.max_tokens = max_tokens
        self.temperature = temperature
        self.top_p = top_p
        self.stop = tuple(stop)
        self.seed = seed
        self.top_k = top_k
        self.min_p = min_p
        self.presence_penalty = presence_penalty
        self.frequency_penalty = frequency_penalty
        self.repetition_penalty = repetition_penalty
        self.logit_bias = dict(logit_bias or {})
        self.response_format = dict(response_format or {"type": "text"})


class Sampling(msgspec.Struct, frozen=True):
    """The part of a request that makes its Sampler, within the limits of the wire."""

    temperature: Annotated[float, Meta(ge=0, le=2)] = 1.0
    top_p: Annotated[float, Meta(gt=0, le=1)] = 1.0
    top_k: Annotated[int, Meta(ge=0, le=2**20)] = 0
    min_p: Annotated[float, Meta(ge=0, le=1)] = 0.0
    presence_penalty: _Penalty = 0.0
    frequency_penalty: _Penalty = 0.0
    repetition_penalty: Annotated[float, Meta(ge=0.5, le=2)] = 1.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    grammar: bytes = b""

    def sampler(self, seed: bytes) -> Sampler:
        return Sampler(
            seed,
            self.temperature,
            self.top_p,
            self.top_k,
            self.min_p,
            self.presence_penalty,
            self.frequency_penalty,
            self.repetition_penalty,
            self.logit_bias,
            self.grammar,
        )


def sampling(options: Options) -> Sampling:
    """Raises BadRequest with the name of what is out of range."""
    given = {
        name: getattr(options, name) for name in Sampling.__struct_fields__ if name not in ("logit_bias", "grammar")
    }
    try:
        found = msgspec.convert(given, Sampling)
    except msgspec.ValidationError as error:
        raise BadRequest(f"The request is out of range: {error}.") from error
    bias, grammar = read_bias(options.logit_bias), read_format(options.response_format)
    return msgspec.structs.replace(found, logit_bias=bias, grammar=grammar)


def read_bias(given: object) -> tuple[tuple[int, float], ...]:
    """Token ids and what is added to their logits, in rising order of the ids. Raises BadRequest."""
    if not isinstance(given, Mapping) or len(given) > MAX_BIAS:
        raise BadRequest(f"'logit_bias' maps at most {MAX_BIAS} token ids to numbers.")
    found: dict[int, float] = {}
    for key, value in given.items():
        token = _token(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not -100 <= value <= 100:
            raise BadRequest(f"'logit_bias' of the token {token} must be a number between -100 and 100.")
        if token in found:
            raise BadRequest(f"'logit_bias' names the token {token} twice.")
        found[token] = float(value)
    return tuple(sorted(found.items()))


def _token(key: object) -> int:
    token = key if isinstance(key, int) and not isinstance(key, bool) else -1
    if isinstance(key, str) and key.isascii() and key.isdigit() and len(key) <= 10:
        token = int(key)
    if not 0 <= token <= MAX_ID:
        raise BadRequest(f"'logit_bias' names {str(key)[:20]!r}, which is no token id.", hint="Ids are whole numbers.")
    return token


def read_format(given: object) -> bytes:
    """The grammar of a `response_format`: a JSON Schema, empty for text. Raises BadRequest."""
    match given:
        case {"type": "text", **rest} if not rest:
            return b""
        case {"type": "json_object", **rest} if not rest:
            return ANY_OBJECT
        case {"type": "json_schema", "json_schema": {"schema": schema, **about}, **rest} if not rest:
            _check_about(about)
            return _grammar(schema)
        case {"type": "json_schema"}:
            raise BadRequest("'response_format.json_schema' must be an object with 'name' and 'schema'.")
        case _:
            raise BadRequest(f"'response_format' is {_FORMATS}.")


def _check_about(about: dict[Any, Any]) -> None:
    """`strict` says nothing here: an answer is always held to its schema."""
    kinds: dict[str, type] = {"name": str, "description": str, "strict": bool}
    for name, value in about.items():
        if name not in kinds:
            raise BadRequest(f"'response_format.json_schema' has no {str(name)[:40]!r}.", hint="Leave it out.")
        if value is not None and not isinstance(value, kinds[name]):
            raise BadRequest(f"'response_format.json_schema.{name}' must be a {kinds[name].__name__}.")


def _grammar(schema: object) -> bytes:
    try:
        written = msgspec.json.encode(schema)
        read_schema(written)
    except BadSchema as error:
        raise BadRequest(f"'response_format.json_schema.schema': {error.message}", hint=error.hint) from error
    except (msgspec.MsgspecError, TypeError, ValueError, RecursionError) as error:
        raise BadRequest(f"'response_format.json_schema.schema' cannot be written as JSON: {error}.") from error
    return written
