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
    facts = msgspec.Raw(lading_facts(bill))
    return _encode({"object": "list", "data": listed, "model": model, "usage": spent, "lading": facts})


def usage(prompt: int, output: int) -> bytes:
    """As JSON."""
    return b'{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d}' % (prompt, output, prompt + output)


def lading_facts(bill: Bill) -> bytes:
    """As JSON. All of it is hex and digits: nothing needs to be escaped."""
    cost, decimals = bill.cost, bill.decimals
    coins = format_amount(cost, decimals)
    hosts: dict[str, None] = {}
    parts = []
    for share in bill.shares:
        host, amount = to_hex(share.host), share.amount
        hosts[host] = None
        own = coins if amount == cost else format_amount(amount, decimals)
        parts.append(
            f'{{"host":"{host}","first":{share.first},"tokens":{share.tokens},"amount_wei":"{amount}","amount":"{own}"}}'
        )
    jobs = [to_hex(job) for job in bill.jobs]
    several = f'"jobs":["{_quoted(jobs)}"],' if len(jobs) > 1 else ""
    named = f'"{_quoted(list(hosts))}"' if hosts else ""
    return (
        f'{{"job":"{jobs[0]}",{several}"cost_wei":"{cost}","cost":"{coins}",'
        f'"hosts":[{named}],"parts":[{",".join(parts)}]}}'
    ).encode()


def _quoted(words: list[str]) -> str:
    """What stands between the first and the last quotation mark of a list."""
    return words[0] if len(words) == 1 else '","'.join(words)


def error_tree(error: ApiError) -> dict[str, Any]:
    return {"error": {"message": str(error), "type": error.kind, "param": error.param, "code": error.code}}


def error_body(error: ApiError) -> bytes:
    return _encode(error_tree(error))


def _floats(row: bytes) -> list[float]:
    values = array("f", row)
    if sys.byteorder == "big":
        values.byteswap()
    return values.tolist()
