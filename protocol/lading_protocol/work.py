"""Work tokens: what a job streams when no language model's tokenizer stands behind it.

A job is billed, resumed, committed and audited by token ids. An engine that answers in text or JSON, or burns fuel,
says so in ids too: three bytes of the answer each, one started FUEL_PER_TOKEN units of WebAssembly fuel, one token
that a model behind a host import read or wrote. So a payer reads off the stream what it is billed for.
"""

from collections.abc import Iterable

from lading_protocol.errors import BadMessage
from lading_protocol.messages import CallRequest, ChatRequest

PIECE = 3
FUEL = 4 << 24
MODEL = 5 << 24
FUEL_PER_TOKEN = 10_000_000


def text_ids(data: bytes) -> list[int]:
    """Bytes as ids: how many (1 to 3) in the top byte, the bytes themselves below."""
    pieces = [data[at : at + PIECE] for at in range(0, len(data), PIECE)]
    return [len(piece) << 24 | int.from_bytes(piece, "big") for piece in pieces]


def id_bytes(token: int) -> bytes:
    """The bytes that one id stands for; none for fuel and model tokens. Raises BadMessage when it is no work token."""
    size, value = token >> 24, token & 0xFFFFFF
    if token in (FUEL, MODEL):
        return b""
    if not 1 <= size <= PIECE or value >> (8 * size):
        raise BadMessage(f"{token} is not a work token.")
    return value.to_bytes(size, "big")


def text_bytes(ids: Iterable[int]) -> bytes:
    """The answer that the ids spell. Raises BadMessage."""
    return b"".join(map(id_bytes, ids))


def task_prompt(request: ChatRequest | CallRequest) -> list[int]:
    """The prompt ids of a request to an engine without a tokenizer."""
    if isinstance(request, CallRequest):
        return text_ids(request.operation.encode() + b"\0" + request.input)
    return text_ids(b"".join(f"{m.role}\0{m.content}\0".encode() for m in request.messages))
