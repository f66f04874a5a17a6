"""The compiled contracts that ship with the package: selectors, argument types, events, errors, bytecode.

Turns calls into bytes and bytes into values: addresses and hashes are bytes, numbers int, structs tuples. eth_abi does
the encoding; nothing here knows a chain.
"""

import json
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import msgspec

from lading_contracts.errors import BadAbi
from lading_protocol.ids import Address
from lading_protocol.keys import keccak256

CONTRACTS = (
    "AICoin",
    "AgentRegistry",
    "Settlement",
    "TimelockController",
    "Parameters",
    "Staking",
    "AuditCourt",
    "LineageCourt",
    "OfferBook",
    "ShareAuctions",
    "PromotionAuctions",
    "Leases",
)
"""In the order in which they are deployed."""


class Item(msgspec.Struct, frozen=True):
    """A function, event or error. `indexed` marks which of an event's inputs are topics."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    indexed: tuple[bool, ...] = ()

    @property
    def signature(self) -> str:
        return f"{self.name}({','.join(self.inputs)})"

    @property
    def topic(self) -> bytes:
        return keccak256(self.signature.encode())

    @property
    def selector(self) -> bytes:
        return self.topic[:4]


class Abi(msgspec.Struct, frozen=True):
    """One contract. `events` is keyed by topic, `errors` by selector."""

    name: str
    functions: dict[str, Item]
    events: dict[bytes, Item]
    errors: dict[bytes, Item]
    constructor: tuple[str, ...]
    bytecode: bytes
    selectors: dict[bytes, Item]

    def call(self, function: str, *arguments: Any) -> bytes:
        item = self._function(function)
        return item.selector + encode(item.inputs, arguments)

    def result(self, function: str, data: bytes) -> tuple[Any, ...]:
        """Raises BadAbi, above all when there is no contract at the address (an empty answer)."""
        return decode(self._function(function).outputs, data)

    def creation(self, *arguments: Any) -> bytes:
        """The data of the transaction that deploys this contract."""
        return self.bytecode + encode(self.constructor, arguments)

    def _function(self, name: str) -> Item:
        try:
            return self.functions[name]
        except KeyError:
            raise BadAbi(f"{self.name} has no function {name}.") from None


@cache
def load(name: str) -> Abi:
    """The contract called `name`, from the package's abi folder. Raises BadAbi when the installation lacks it."""
    path = files("lading_contracts") / "abi" / f"{name}.json"
    try:
        document = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise BadAbi(f"The compiled contract {name} is not part of this installation.") from None
    entries = document["abi"]
    code = document["bytecode"]
    code = code["object"] if isinstance(code, dict) else code

    def items(kind: str) -> list[Item]:
        return [_item(entry) for entry in entries if entry["type"] == kind]

    functions = items("function")
    constructors = items("constructor")
    return Abi(
        name=name,
        functions={item.name: item for item in functions},
        events={item.topic: item for item in items("event")},
        errors={item.selector: item for item in items("error")},
        constructor=constructors[0].inputs if constructors else (),
        bytecode=bytes.fromhex(code.removeprefix("0x")),
        selectors={item.selector: item for item in functions},
    )


@cache
def all_errors() -> dict[bytes, Item]:
    """Every custom error of every contract: one contract's error may surface through another."""
    return {selector: item for name in CONTRACTS for selector, item in load(name).errors.items()}


def encode(types: Sequence[str], values: Sequence[Any]) -> bytes:
    from eth_abi.abi import encode as run
    from eth_abi.exceptions import EncodingError

    try:
        return run(types, values)
    except (EncodingError, TypeError, ValueError) as error:
        raise BadAbi(f"The values do not fit ({', '.join(types)}): {error}", hint="") from error


def decode(types: Sequence[str], data: bytes) -> tuple[Any, ...]:
    from eth_abi.abi import decode as run
    from eth_abi.exceptions import DecodingError

    try:
        values = run(types, data)
    except (DecodingError, OverflowError) as error:
        raise BadAbi(f"{len(data)} bytes from the chain are not ({', '.join(types)}).") from error
    return tuple(_plain(kind, value) for kind, value in zip(types, values, strict=True))


def _plain(kind: str, value: Any) -> Any:
    """eth_abi gives addresses as hex text; Lading has them as bytes everywhere."""
    if kind.endswith("]"):
        return tuple(_plain(kind[: kind.rindex("[")], entry) for entry in value)
    if kind == "address":
        return Address(bytes.fromhex(value[2:]))
    if kind.startswith("("):
        return tuple(_plain(part, entry) for part, entry in zip(_parts(kind), value, strict=True))
    return value


def _parts(kind: str) -> list[str]:
    """Split "(a,(b,c),d)" at its top-level commas."""
    parts, depth, current = [], 0, ""
    for letter in kind[1:-1]:
        if letter == "," and depth == 0:
            parts.append(current)
            current = ""
            continue
        depth += (letter == "(") - (letter == ")")
        current += letter
    return [*parts, current] if current else parts


def _item(entry: dict[str, Any]) -> Item:
    inputs = entry.get("inputs", [])
    return Item(
        name=entry.get("name", ""),
        inputs=tuple(_type(one) for one in inputs),
        outputs=tuple(_type(one) for one in entry.get("outputs", [])),
        names=tuple(one.get("name", "") for one in inputs),
        indexed=tuple(bool(one.get("indexed")) for one in inputs),
    )


def _type(entry: dict[str, Any]) -> str:
    kind: str = entry["type"]
    if kind.startswith("tuple"):
        return "(" + ",".join(_type(part) for part in entry["components"]) + ")" + kind.removeprefix("tuple")
    return kind
