"""What every answer says of its bill, its vectors and its errors, in OpenAI's shapes. Extra facts go only into a field
`lading`.

Money is in wei as a string, and in tokens as a decimal string beside it. `now` is Unix seconds.
"""

import base64
import sys
from array import array
from typing import Any

import msgspec

from lading_coordinator.errors import ApiError
from lading_protocol.ids import JobId, Wei, to_hex
from lading_protocol.pricing import format_amount

_encode = msgspec.json.Encoder().encode


class Share(msgspec.Struct, frozen=True):
    """What one host did of a job and is owed for it."""

    host: bytes
    first: int
    tokens: int
    amount: Wei


class Bill(msgspec.Struct, frozen=True):
    """The facts about finished jobs that their consumer may check: one job for each answer, in their order."""

    jobs: tuple[JobId, ...]
    cost: Wei
    prompt_tokens: int
    output_tokens: int
    shares: tuple[Share, ...]
    decimals: int


class Matrix(msgspec.Struct, frozen=True):
    """Rows of `width` little-endian float32, as they came from the host."""

    width: int
    data: bytes


def embeddings(model: str, rows: Matrix, bill: Bill, *, as_base64: bool) -> bytes:
    size = 4 * rows.width
    cut = [rows.data[at : at + size] for at in range(0, len(rows.data), size)]
    vectors = [base64.b64encode(one).decode() if as_base64 else _floats(one) for one in cut]
    listed = [{"object": "embedding", "index": i, "embedding": vector} for i, vector in enumerate(vectors)]
    spent = {"prompt_tokens": bill.prompt_tokens, "total_tokens": bill.prompt_tokens}
    tree = {"object": "list", "data": listed, "model": model, "usage": spent, "lading": lading_facts(bill)}
    return _encode(tree)


def usage(prompt: int, output: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}


def lading_facts(bill: Bill) -> dict[str, Any]:
    parts = [
        {
            "host": to_hex(share.host),
            "first": share.first,
            "tokens": share.tokens,
            "amount_wei": str(share.amount),
            "amount": format_amount(share.amount, bill.decimals),
        }
        for share in bill.shares
    ]
    cost = {"cost_wei": str(bill.cost), "cost": format_amount(bill.cost, bill.decimals)}
    hosts = list(dict.fromkeys(to_hex(share.host) for share in bill.shares))
    jobs = [to_hex(job) for job in bill.jobs]
    return {"job": jobs[0], **({"jobs": jobs} if len(jobs) > 1 else {}), **cost, "hosts": hosts, "parts": parts}


def error_tree(error: ApiError) -> dict[str, Any]:
    return {"error": {"message": str(error), "type": error.kind, "param": error.param, "code": error.code}}


def error_body(error: ApiError) -> bytes:
    return _encode(error_tree(error))


def _floats(row: bytes) -> list[float]:
    values = array("f", row)
    if sys.byteorder == "big":
        values.byteswap()
    return values.tolist()
