"""Why a contract refused, in words. Pure: revert bytes in, a `Reverted` with one clear sentence out.

The words for each custom error live here and nowhere else; a test checks that no error of the contracts lacks them.
"""

from typing import Any

from lading_contracts import abi
from lading_contracts.errors import BadAbi, Reverted
from lading_protocol.ids import short

_ERROR_STRING = bytes.fromhex("08c379a0")
_PANIC = bytes.fromhex("4e487b71")
_PANICS = {0x01: "an assertion failed", 0x11: "arithmetic overflowed", 0x12: "division by zero", 0x32: "index out of range"}

# name: (what and why, what to do)
WORDS: dict[str, tuple[str, str]] = {}


def explain(data: bytes, *, tx: bytes | None = None) -> Reverted:
    """Decode revert data: a custom error of ours, Error(string), Panic(uint256), or nothing at all."""
    selector, body = data[:4], data[4:]
    try:
        if selector == _ERROR_STRING:
            (text,) = abi.decode(("string",), body)
            return Reverted(f"The contract refused: {text}.", name="Error", arguments=(text,), tx=tx)
        if selector == _PANIC:
            (code,) = abi.decode(("uint256",), body)
            return Reverted(f"The contract failed: {_PANICS.get(code, hex(code))}.", name="Panic", arguments=(code,), tx=tx)
        item = abi.all_errors().get(selector)
        if item is not None:
            return _named(item.name, item.names, abi.decode(item.inputs, body), tx)
    except BadAbi:
        pass
    if not data:
        return Reverted("The contract refused without giving a reason (or ran out of gas).", name="", tx=tx)
    return Reverted(f"The contract refused with an unknown error 0x{selector.hex()}.", name=selector.hex(), tx=tx)


def _named(name: str, names: tuple[str, ...], values: tuple[Any, ...], tx: bytes | None) -> Reverted:
    shown = ", ".join(f"{label or 'value'} {_show(value)}" for label, value in zip(names, values, strict=True))
    what, todo = WORDS.get(name, (f"The contract refused: {name}", None))
    message = f"{what} ({shown})." if shown else f"{what}."
    return Reverted(message, name=name, arguments=values, tx=tx, hint=todo)


def _show(value: Any) -> str:
    return short(value) if isinstance(value, bytes) else str(value)
