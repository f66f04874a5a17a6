"""Work tokens: what a job streams when no language model's tokenizer stands behind it.

A job is billed, resumed, committed and audited by token ids. An engine that answers in text or JSON, or burns fuel,
says so in ids too: three bytes of the answer each, one started FUEL_PER_TOKEN units of WebAssembly fuel, one token
that a model behind a host import read or wrote. So a payer reads off the stream what it is billed for.
"""

import struct
from collections.abc import Iterable

from lading_protocol.errors import BadMessage
from lading_protocol.messages import CallRequest, ChatRequest, RichChat

PIECE = 3
FUEL = 4 << 24
MODEL = 5 << 24
FUEL_PER_TOKEN = 10_000_000


def text_ids(data: bytes) -> list[int]:
    """Bytes as ids: how many (1 to 3) in the top byte, the bytes themselves below."""
    whole = len(data) // PIECE
    words = bytearray((PIECE, 0, 0, 0)) * whole
    for at in range(PIECE):
        words[at + 1 :: 4] = data[at : PIECE * whole : PIECE]
    ids = list(struct.unpack(f">{whole}I", words))
    if rest := data[PIECE * whole :]:
        ids.append(len(rest) << 24 | int.from_bytes(rest, "big"))
    return ids


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


def prompt_bytes(request: ChatRequest | CallRequest) -> bytes:
    """What the prompt ids of a request to an engine without a tokenizer spell."""
    if isinstance(request, CallRequest):
        return request.operation.encode() + b"\0" + request.input
    spoken = b"".join([f"{m.role}\0{m.content}\0".encode() for m in request.messages])
    if isinstance(request, RichChat):
        spoken += b"\0".join((request.tools, *(data for _, data in request.turns)))
    return spoken


def task_prompt(request: ChatRequest | CallRequest) -> list[int]:
    return text_ids(prompt_bytes(request))


def task_prompt_size(request: ChatRequest | CallRequest) -> int:
    """How many ids task_prompt has."""
    return -(-len(prompt_bytes(request)) // PIECE)
