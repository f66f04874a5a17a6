"""The `wasm-core` engine: a module with a small ABI of its own (docs/agents/wasm.md), in Rust, C or what else compiles.

The guest exports `memory`, `alloc` and `call`, and imports what it uses of the module "lading". Numbers from a guest
are signed in Python and mean nothing until they have been checked against the size of its memory.
"""

import ctypes
import os
import time
from collections.abc import Callable
from ctypes import byref
from typing import Any

from wasmtime import FuncType, Linker, Module, Store, ValType, WasmtimeError
from wasmtime import _ffi as ffi

from lading_node.engines import wasm_fiber as fiber
from lading_node.engines.errors import EngineError, one_line
from lading_node.engines.host_models import BAD_ARGUMENT, MOST_TENSORS, TOO_LONG, Refused
from lading_node.engines.port import EngineSpec
from lading_node.engines.wasm_call import Call, Stage, guarded

# Bytes that a guest may hand over at once to a model, and of other things.
_MOST_TEXT = 512 << 10
_MOST_ALIAS, _MOST_WORDS, _MOST_RANDOM = 64, 1000, 4096
_U32 = 0xFFFFFFFF
_I32, _I64 = ValType.i32(), ValType.i64()
_EXPORTS = ("memory", "alloc", "call")
_TAKES = {"alloc": 1, "call": 4}


class Guest:
    """One instance: its memory and its two functions, as C values (None where it exports nothing of the name)."""

    def __init__(self, instance: Any, store: Store) -> None:
        self.memory, self.alloc, self.call = (fiber.export(instance, store, name) for name in _EXPORTS)


class CoreGuests:
    def __init__(self, spec: EngineSpec) -> None:
        """Raises EngineError."""
        self.engine = fiber.engine(components=False)
        self.stage = Stage()
        linker = Linker(self.engine)
        for name, (takes, gives, function) in _imports(spec).items():
            kind = FuncType([_I32] * takes, gives)
            linker.define_func("lading", name, kind, guarded(self.stage, function), access_caller=True)
        try:
            self._ready = linker.instantiate_pre(Module.deserialize_file(self.engine, spec.cache))
        except WasmtimeError as error:
            raise EngineError("invalid_package", f"The module cannot be linked: {one_line(error)}.") from error

    def begin(self, store: Store, call: Call) -> fiber.Run:
        instance = yield from fiber.instantiate(self._ready, store)
        call.guest = Guest(instance, store)

    def check(self, store: Store, call: Call) -> None:
        for name in _EXPORTS:
            found = getattr(call.guest, name)
            wanted = ffi.WASMTIME_EXTERN_MEMORY if name == "memory" else ffi.WASMTIME_EXTERN_FUNC
            if found is None or found.kind != wanted.value:
                raise EngineError("invalid_package", f"it exports no {name!r} of the right kind")
            if name in _TAKES:
                kind = FuncType._from_ptr(ffi.wasmtime_func_type(store._context(), byref(found.of.func)), None)
                if list(kind.params) != [_I32] * _TAKES[name] or list(kind.results) != [_I32]:
                    raise EngineError("invalid_package", f"{name!r} must take {_TAKES[name]} i32 and give one")

    def answer(self, store: Store, call: Call, operation: str, text: bytes) -> fiber.Run:
        guest: Guest = call.guest
        name = operation.encode()
        place = yield from fiber.call(store, guest.alloc.of.func, len(name) + len(text))
        _Memory(call, store).write(place, name + text)
        behind = _signed((place & _U32) + len(name))
        code = yield from fiber.call(store, guest.call.of.func, place, len(name), behind, len(text))
        if code:
            call.fail(f"code {code}")


class _Memory:
    """A guest's memory as it is now: it moves when it grows, so none of this may be kept."""

    def __init__(self, call: Call, context: Any) -> None:
        """Raises EngineError: a module's start function runs before there is anything to hand over."""
        guest: Guest | None = call.guest
        if guest is None:
            raise EngineError("agent_error", "The agent called the host before it was ready.")
        place = byref(guest.memory.of.memory)
        self._base = ctypes.cast(ffi.wasmtime_memory_data(context._context(), place), ctypes.c_void_p).value or 0
        self._size = int(ffi.wasmtime_memory_data_size(context._context(), place))

    def read(self, at: int, length: int, most: int) -> bytes:
        """The first `most` of `length` bytes, all of which must be the guest's own."""
        at, length = self._check(at, length)
        return ctypes.string_at(self._base + at, min(length, most))

    def whole(self, at: int, length: int, most: int) -> bytes:
        """Raises Refused above `most` bytes."""
        if length & _U32 > most:
            raise Refused(TOO_LONG, "")
        return self.read(at, length, most)

    def text(self, at: int, length: int, most: int) -> str:
        """Raises Refused."""
        try:
            return self.whole(at, length, most).decode()
        except UnicodeDecodeError:
            raise Refused(BAD_ARGUMENT, "") from None

    def write(self, at: int, data: bytes) -> None:
        at, length = self._check(at, len(data))
        ctypes.memmove(self._base + at, data, length)

    def _check(self, at: int, length: int) -> tuple[int, int]:
        at, length = at & _U32, length & _U32
        if at + length > self._size:
            raise EngineError("agent_error", f"The agent handed over {length:,} bytes at {at:,}, outside its memory.")
        return at, length


def _imports(spec: EngineSpec) -> dict[str, tuple[int, list[ValType], Callable[..., Any]]]:
    """By name: how many i32 it takes, what it gives, and what it does. What is not granted does not exist."""
    imports: dict[str, tuple[int, list[ValType], Callable[..., Any]]] = {
        "emit": (2, [], _emit),
        "fail": (2, [], _fail),
        "embed": (6, [_I32], _or_code(_embed)),
        "generate": (4, [_I32], _or_code(_generate)),
        "next": (3, [_I32], _or_code(_next)),
        "tensors": (6, [_I32], _or_code(_tensors)),
    }
    if spec.capabilities.clock:
        imports["now"] = (0, [_I64], _now)
    if spec.capabilities.randomness:
        imports["random"] = (2, [], _random)
    return imports


def _or_code(function: Callable[..., int]) -> Callable[..., int]:
    def run(*arguments: Any) -> int:
        try:
            return function(*arguments)
        except Refused as refusal:
            return refusal.code

    return run


def _emit(call: Call, context: Any, at: int, length: int) -> None:
    call.work(context, min(length & _U32, call.most()))
    call.emit(context, _Memory(call, context).read(at, length, call.most()))


def _fail(call: Call, context: Any, at: int, length: int) -> None:
    call.fail(_Memory(call, context).read(at, length, _MOST_WORDS).decode(errors="replace"))


def _embed(call: Call, context: Any, *given: int) -> int:
    alias_at, alias_length, text_at, text_length, out, room = given
    call.work(context, text_length & _U32)
    memory = _Memory(call, context)
    alias, text = memory.text(alias_at, alias_length, _MOST_ALIAS), memory.text(text_at, text_length, _MOST_TEXT)
    vector = call.embed(context, alias, text)
    if len(vector) // 4 > room & _U32:
        raise Refused(TOO_LONG, "")
    memory.write(out, vector)
    return len(vector) // 4


def _generate(call: Call, context: Any, *given: int) -> int:
    alias_at, alias_length, prompt_at, prompt_length = given
    call.work(context, prompt_length & _U32)
    memory = _Memory(call, context)
    alias = memory.text(alias_at, alias_length, _MOST_ALIAS)
    return call.generate(context, alias, memory.whole(prompt_at, prompt_length, _MOST_TEXT))


def _next(call: Call, context: Any, handle: int, out: int, room: int) -> int:
    call.work(context)
    text = call.next(context, handle, min(room & _U32, _MOST_TEXT))
    _Memory(call, context).write(out, text)
    return len(text)


def _tensors(call: Call, context: Any, *given: int) -> int:
    alias_at, alias_length, in_at, in_length, out, room = given
    call.work(context, in_length & _U32)
    memory = _Memory(call, context)
    alias = memory.text(alias_at, alias_length, _MOST_ALIAS)
    given_back = call.tensors(context, alias, memory.whole(in_at, in_length, MOST_TENSORS))
    if len(given_back) > room & _U32:
        raise Refused(TOO_LONG, "")
    memory.write(out, given_back)
    return len(given_back)


def _now(call: Call, context: Any) -> int:
    call.work(context)
    return time.time_ns() // 1_000_000


def _random(call: Call, context: Any, at: int, length: int) -> None:
    call.work(context, length & _U32)
    if length & _U32 > _MOST_RANDOM:
        raise EngineError("agent_error", f"The agent asked for more than {_MOST_RANDOM} random bytes at once.")
    _Memory(call, context).write(at, os.urandom(length & _U32))


def _signed(value: int) -> int:
    """As wasmtime takes it."""
    return value - (1 << 32) if value >> 31 else value
