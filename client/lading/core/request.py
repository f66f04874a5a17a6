"""From what a caller writes to the protocol's request. Pure; `fresh` is the caller's randomness."""

from collections.abc import Sequence

import msgspec

from lading.core.options import Options, sampling
from lading.errors import BadRequest
from lading_protocol.ids import AgentId
from lading_protocol.messages import CallRequest, ChatRequest, Message
from lading_protocol.transcript import sha256

# Work tokens of a call whose caller sets no bound: 12 kB of answer, or half a minute of computing.
CALL_TOKENS = 4096
ROLES = frozenset({"system", "developer", "user", "assistant"})


def seed_bytes(agent: AgentId, seed: int | None, fresh: bytes) -> bytes:
    """The sampler's seed: fixed by the caller's number and the agent, else 32 fresh random bytes."""
    if seed is None:
        return fresh
    return sha256(b"lading/seed/1" + agent + (seed % 2**64).to_bytes(8, "big"))


def call_request(operation: str, given: object, max_tokens: int) -> CallRequest:
    """Raises BadRequest, in words, when a value is out of range."""
    try:
        request = CallRequest(operation, msgspec.json.encode(given), max_tokens)
        return msgspec.msgpack.decode(msgspec.msgpack.encode(request), type=CallRequest)
    except (msgspec.MsgspecError, TypeError, ValueError) as error:
        raise BadRequest(f"The request is out of range: {error}.") from error


def chat_request(
    agent: AgentId,
    messages: Sequence[tuple[str, str]],
    options: Options,
    max_tokens: int,
    fresh: bytes,
) -> ChatRequest:
    """`max_tokens` is the caller's bound or the usual one. Raises BadRequest, in words, for a value out of range."""
    for role, _ in messages:
        if role not in ROLES:
            raise BadRequest(f"Unknown role {role!r}; use one of {', '.join(sorted(ROLES))}.")
    request = ChatRequest(
        messages=tuple(Message("system" if role == "developer" else role, content) for role, content in messages),
        max_tokens=max_tokens,
        sampler=sampling(options).sampler(seed_bytes(agent, options.seed, fresh)),
        stop=options.stop,
    )
    try:
        # The wire types carry the limits: whatever a host would refuse to read is refused here, with the field's name.
        return msgspec.convert(msgspec.to_builtins(request), ChatRequest)
    except msgspec.ValidationError as error:
        raise BadRequest(f"The request is out of range: {error}.") from error
