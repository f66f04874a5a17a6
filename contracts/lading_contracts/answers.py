"""JSON-RPC answers into values and errors. An endpoint may answer anything: what has not its form is a BadAnswer.

Knows the forms of Ethereum's JSON-RPC and how endpoints word their refusals; asks nothing itself.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lading_contracts import reverts
from lading_contracts.errors import BadAnswer, ChainError, ChainUnreachable, RpcFailed, TooWide
from lading_contracts.port import Block, Log
from lading_protocol.ids import Address, Digest

# Words of geth, erigon, nethermind and the public endpoints. They have no code in common.
_BUSY = re.compile(r"rate.?limit|too many requests|requests? (count|per second)|capacity|throttl")
_WIDE = re.compile(
    r"more than \d+ (results|logs)|too many (results|blocks|logs)|(block|log).{0,20} range|ranges? over"
    r"|range.{0,20}(large|wide|exceed|limit)|exceeds? .{0,30}(range|limit|blocks)|max(imum)? .{0,10}range"
    r"|limited to|limit exceeded|response size|time(d)? ?out"
)


@contextmanager
def reading(method: str) -> Iterator[None]:
    """Around every look into an answer. Raises BadAnswer."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise BadAnswer(
            f"{method}: the endpoint's answer has not its form ({type(error).__name__}: {error})."
        ) from error


def failure(method: str, error: Any) -> ChainError:
    """What an error answer means."""
    if not isinstance(error, dict):
        return RpcFailed(f"{method}: {error}.")
    words = str(error.get("message") or "") or "no reason given"
    data, code = error.get("data"), error.get("code")
    if isinstance(data, dict):
        data = data.get("data")
    reverted = "revert" in words.lower() or code == 3
    if isinstance(data, str) and data.startswith("0x") and (reverted or len(data) >= 10):
        with reading(method):
            return reverts.explain(blob(data))
    if reverted:
        return reverts.explain(b"")
    if code == 429 or _BUSY.search(words.lower()):
        return ChainUnreachable(f"The chain's endpoint is busy: {words}.")
    if method == "eth_getLogs" and _WIDE.search(words.lower()):
        return TooWide(f"{method}: {words}.")
    return RpcFailed(f"{method}: {words}.")


def block(found: Any) -> Block:
    return Block(whole(found["number"]), digest(found["hash"]), digest(found["parentHash"]), whole(found["timestamp"]))


def log(entry: Any) -> Log:
    return Log(
        address=Address(blob(entry["address"], 20)),
        topics=tuple(digest(topic) for topic in entry["topics"]),
        data=blob(entry["data"]),
        block=whole(entry["blockNumber"]),
        block_hash=digest(entry["blockHash"]),
        tx=digest(entry["transactionHash"]),
        index=whole(entry["logIndex"]),
    )


def whole(text: Any) -> int:
    if not isinstance(text, str) or not text.startswith("0x"):
        raise TypeError(f"{text!r:.80} is not a number in hexadecimal")
    return int(text, 16)


def blob(text: Any, size: int | None = None) -> bytes:
    if not isinstance(text, str) or not text.startswith("0x"):
        raise TypeError(f"{text!r:.80} is not hexadecimal")
    data = bytes.fromhex(text[2:])
    if size is not None and len(data) != size:
        raise ValueError(f"{len(data)} bytes instead of {size}")
    return data


def digest(text: Any) -> Digest:
    return Digest(blob(text, 32))
