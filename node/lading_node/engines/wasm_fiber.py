"""A guest's run that can be left in the middle and gone on with, in one thread: wasmtime's asynchronous calls.

Owns the engine and the stores. The wheel exports this part of wasmtime's C interface (wasmtime/async.h) without a
Python face, so it is bound here. Every slice of fuel the guest stands still and the caller looks at the clock.
"""

import ctypes
from collections.abc import Generator
from ctypes import POINTER, byref, c_bool, c_size_t, c_uint64, c_void_p
from functools import cache
from typing import Any

import wasmtime._func
import wasmtime.component._enter
from wasmtime import Config, Engine, Instance, InstancePre, Store, Trap, TrapCode, WasmtimeError, component
from wasmtime import _ffi as ffi

from lading_node.engines.errors import one_line
from lading_node.engines.wasm_code import SETTINGS, release

RELEASE = release()
# Of an instance; part of what an answer depends on, so they are the same on every host and no setting changes them.
MEMORY = 256 << 20
TABLE_ELEMENTS = 100_000
INSTANCES, TABLES, MEMORIES = 64, 64, 16
# Fuel between two stops: well under a millisecond of plain code.
SLICE = 1_000_000
# Addresses of a run's own stack: what wasm may use, and far more for what the host does on it.
_STACK = 8 << 20
_NO_FUEL = "all fuel consumed by WebAssembly"

_error_ptr, _trap_ptr = POINTER(ffi.wasmtime_error_t), POINTER(ffi.wasm_trap_t)
_context_ptr, _val_ptr = POINTER(ffi.wasmtime_context_t), POINTER(ffi.wasmtime_val_t)
_component_val_ptr = POINTER(ffi.wasmtime_component_val_t)


def _bind(name: str, gives: Any, *takes: Any) -> Any:
    function = getattr(ffi.dll, f"wasmtime_{name}")
    function.restype, function.argtypes = gives, takes
    return function


_set_stack = _bind("config_async_stack_size_set", None, POINTER(ffi.wasm_config_t), c_uint64)
_set_slice = _bind("context_fuel_async_yield_interval", _error_ptr, _context_ptr, c_uint64)
_poll = _bind("call_future_poll", c_bool, c_void_p)
_delete = _bind("call_future_delete", None, c_void_p)
_instantiate = _bind(
    "instance_pre_instantiate_async",
    c_void_p,
    POINTER(ffi.wasmtime_instance_pre_t),
    _context_ptr,
    POINTER(ffi.wasmtime_instance_t),
    POINTER(_trap_ptr),
    POINTER(_error_ptr),
)
_call = _bind(
    "func_call_async",
    c_void_p,
    _context_ptr,
    POINTER(ffi.wasmtime_func_t),
    _val_ptr,
    c_size_t,
    _val_ptr,
    c_size_t,
    POINTER(_trap_ptr),
    POINTER(_error_ptr),
)
_instantiate_component = _bind(
    "component_linker_instantiate_async",
    c_void_p,
    POINTER(ffi.wasmtime_component_linker_t),
    _context_ptr,
    POINTER(ffi.wasmtime_component_t),
    POINTER(ffi.wasmtime_component_instance_t),
    POINTER(_error_ptr),
)
_call_component = _bind(
    "component_func_call_async",
    c_void_p,
    POINTER(ffi.wasmtime_component_func_t),
    _context_ptr,
    _component_val_ptr,
    c_size_t,
    _component_val_ptr,
    c_size_t,
    POINTER(_error_ptr),
)

# Yields at every stop of the guest, returns what it gave. Raises Trap, WasmtimeError.
Run = Generator[None, None, Any]


@cache
def engine(*, components: bool) -> Engine:
    config = Config()
    for name, value in SETTINGS.items():
        setattr(config, name, value)
    config.wasm_component_model = components
    _set_stack(config.ptr(), _STACK)
    return Engine(config)


def open_store(engine: Engine, fuel: int) -> Store:
    """For one call. Its memory goes with it: close it."""
    store = Store(engine)
    store.set_limits(MEMORY, TABLE_ELEMENTS, INSTANCES, TABLES, MEMORIES)
    store.set_fuel(fuel)
    stop_after(store, SLICE)
    return store


def stop_after(context: Any, fuel: int) -> None:
    """How much fuel the guest burns before it stands still again, counted from now."""
    _check(_set_slice(context._context(), fuel))


def fuel_left(context: Any) -> int:
    left = c_uint64(0)
    _check(ffi.wasmtime_context_get_fuel(context._context(), byref(left)))
    return left.value


def burn(context: Any, fuel: int) -> None:
    """As if the guest had done the work itself. What it lacks it runs out of when it goes on."""
    _check(ffi.wasmtime_context_set_fuel(context._context(), max(0, fuel_left(context) - fuel)))


def instantiate(ready: InstancePre, store: Store) -> Run:
    made, trap, error = ffi.wasmtime_instance_t(), _trap_ptr(), _error_ptr()
    run = _instantiate(ready.ptr(), store._context(), byref(made), byref(trap), byref(error))
    yield from _finish(run, trap, error)
    return Instance._from_raw(made)


def call(store: Store, function: Any, *arguments: int) -> Run:
    """A core function that takes 32-bit integers and gives one."""
    given, result = (ffi.wasmtime_val_t * len(arguments))(), (ffi.wasmtime_val_t * 1)()
    for value, argument in zip(given, arguments, strict=True):
        value.kind, value.of.i32 = ffi.WASMTIME_I32, argument
    trap, error = _trap_ptr(), _error_ptr()
    context = store._context()
    run = _call(context, byref(function), given, len(given), result, 1, byref(trap), byref(error))
    yield from _finish(run, trap, error)
    return result[0].of.i32


def instantiate_component(linker: component.Linker, store: Store, made_of: component.Component) -> Run:
    made, error = ffi.wasmtime_component_instance_t(), _error_ptr()
    run = _instantiate_component(linker.ptr(), store._context(), made_of.ptr(), byref(made), byref(error))
    yield from _finish(run, None, error)
    return component.Instance._from_raw(made)


def call_component(store: Store, function: component.Func, *arguments: Any) -> Run:
    kind = function.type(store)
    given, result, error = (
        (ffi.wasmtime_component_val_t * len(arguments))(),
        ffi.wasmtime_component_val_t(),
        _error_ptr(),
    )
    filled = 0
    try:
        for (_, each), argument in zip(kind.params, arguments, strict=True):
            each.convert_to_c(store, argument, ctypes.pointer(given[filled]))
            filled += 1
        run = _call_component(byref(function._func), store._context(), given, filled, byref(result), 1, byref(error))
        yield from _finish(run, None, error)
        assert kind.result is not None
        return kind.result.convert_from_c(result)
    finally:
        for at in range(filled):
            ffi.wasmtime_component_val_delete(byref(given[at]))


def export(instance: Instance, store: Store, name: str) -> Any:
    """The C value of an export, None when there is none."""
    found = ffi.wasmtime_extern_t()
    raw = name.encode()
    has = ffi.wasmtime_instance_export_get(
        store._context(), byref(instance._instance), ctypes.create_string_buffer(raw), len(raw), byref(found)
    )
    return found if has else None


def _finish(run: Any, trap: Any, error: Any) -> Generator[None, None, None]:
    """Left early, the guest is unwound where it stands."""
    try:
        while not _poll(run):
            yield
    finally:
        _delete(run)
    if error:
        raise WasmtimeError._from_ptr(error)
    if trap:
        raise Trap._from_ptr(trap)


def forget_errors() -> None:
    """wasmtime keeps the last error that a host function raised, and with it all that the call held."""
    wasmtime._func.LAST_EXCEPTION = wasmtime.component._enter.LAST_EXCEPTION = None


def out_of_fuel(error: Trap | WasmtimeError) -> bool:
    """A component's error has no code, only words, and those come last, behind the names that the guest chose."""
    if isinstance(error, Trap):
        return error.trap_code is TrapCode.OUT_OF_FUEL
    return str(error).rstrip().endswith(_NO_FUEL)


def why(error: Trap | WasmtimeError) -> str:
    """As the end of a sentence."""
    if isinstance(error, Trap) and error.trap_code is not None:
        return str(error.trap_code.name).lower().replace("_", " ")
    words: str = one_line(str(error).rpartition("wasm trap: ")[2]).rstrip(".")
    return words


def _check(error: Any) -> None:
    if error:
        raise WasmtimeError._from_ptr(error)
