"""The `wasm-component` engine: a component of the world lading:agent/agent (wasm_agents/wit/agent.wit).

Every import is offered by name, after its type was compared with the world's; WASI is the closed one. Strings and lists
are lifted by wasmtime, which refuses more than 128 MiB in one call.
"""

import struct
from collections.abc import Callable
from typing import Any

from wasmtime import Store, WasmtimeError, component

from lading_node.engines import wasi_closed
from lading_node.engines import wasm_fiber as fiber
from lading_node.engines.errors import EngineError, one_line
from lading_node.engines.host_models import Refused
from lading_node.engines.port import EngineSpec
from lading_node.engines.wasm_call import Call, Stage, guarded

HOST, INFER = "lading:agent/host@1.0.0", "lading:agent/infer@1.0.0"
_TYPES = {
    (HOST, "emit"): "string ->",
    (INFER, "embed"): "string string -> result<list<f32> string>",
    (INFER, "generate"): "string string -> result<u32 string>",
    (INFER, "next"): "u32 -> result<string string>",
}
_CALL = "string string -> result<string string>"
_NAMES = {
    component.String: "string",
    component.U32: "u32",
    component.U8: "u8",
    component.F32: "f32",
}
# Bytes of the words in which an agent refuses.
_MOST_WORDS = 1000


class ComponentGuests:
    def __init__(self, spec: EngineSpec) -> None:
        """Raises EngineError."""
        self.engine = fiber.engine(components=True)
        self.stage = Stage()
        self._resources: dict[str, int] = {}
        try:
            self._component = component.Component.deserialize_file(self.engine, spec.cache)
            self._linker = component.Linker(self.engine)
            self._define(spec)
            self._linker.define_unknown_imports_as_traps(self._component)
        except WasmtimeError as error:
            raise EngineError("invalid_package", f"The component cannot be linked: {one_line(error)}.") from error

    def begin(self, store: Store, call: Call) -> fiber.Run:
        call.guest = yield from fiber.instantiate_component(self._linker, store, self._component)

    def check(self, store: Store, call: Call) -> None:
        function = call.guest.get_func(store, "call")
        if function is None or _said(function.type(store)) != _CALL:
            raise EngineError("invalid_package", f"it exports no function call: {_CALL}")

    def answer(self, store: Store, call: Call, operation: str, text: bytes) -> fiber.Run:
        function = call.guest.get_func(store, "call")
        try:
            given = text.decode()
        except UnicodeDecodeError:
            raise EngineError("invalid_request", "The input is not UTF-8 text.") from None
        result = yield from fiber.call_component(store, function, operation, given)
        if result.tag == "err":
            call.fail(result.payload[:_MOST_WORDS])
        call.finish(store, result.payload.encode())

    def _define(self, spec: EngineSpec) -> None:
        offered = {**_own(), **wasi_closed.functions(spec.capabilities, self._handle)}
        with self._linker.root() as root:
            for name, extern in self._component.type.imports(self.engine).items():
                short = wasi_closed.interface(name)
                if name not in (HOST, INFER) and not short.startswith(wasi_closed.PACKAGES):
                    raise EngineError("invalid_package", f"The component imports {name[:80]!r}, which no host has.")
                if not isinstance(kind := extern.ty, component.ComponentInstanceType):
                    raise EngineError("invalid_package", f"The component imports {name[:80]!r} as what it is not.")
                with root.add_instance(name) as instance:
                    self._fill(instance, name, kind, offered)

    def _fill(self, instance: Any, name: str, kind: Any, offered: dict[tuple[str, str], Callable[..., Any]]) -> None:
        own = name in (HOST, INFER)
        for item, extern in kind.exports(self.engine).items():
            what = extern.ty
            if isinstance(what, component.ResourceType):
                instance.add_resource(item, component.ResourceType.host(self._number(item)), _dropped)
                continue
            function = offered.get((name if own else wasi_closed.interface(name), item))
            if own and (function is None or not _is_function(what) or _said(what) != _TYPES[name, item]):
                raise EngineError(
                    "invalid_package", f"The component imports {item[:80]!r} of {name} as what it is not."
                )
            if function is not None and _is_function(what):
                instance.add_func(item, guarded(self.stage, function))

    def _number(self, name: str) -> int:
        """Of a kind of resource, the same in every interface that speaks of it."""
        return self._resources.setdefault(name, len(self._resources))

    def _handle(self, name: str) -> component.ResourceHost:
        return component.ResourceHost.own(0, self._number(name))


def _dropped(context: Any, handle: int) -> None:
    """Nothing stands behind a handle."""


def _is_function(what: Any) -> bool:
    return isinstance(what, component.FuncType)


def _said(kind: component.FuncType) -> str:
    """A type in words, as in _TYPES; "?" for what the world does not use."""
    takes = " ".join(_word(each) for _, each in kind.params)
    gives = "" if kind.result is None else f" {_word(kind.result)}"
    return f"{takes} ->{gives}"


def _word(kind: Any) -> str:
    if isinstance(kind, component.ListType):
        return f"list<{_word(kind.element)}>"
    if isinstance(kind, component.ResultType):
        return f"result<{_word(kind.ok)} {_word(kind.err)}>"
    return _NAMES.get(type(kind), "?")


def _own() -> dict[tuple[str, str], Callable[..., Any]]:
    return {
        (HOST, "emit"): _emit,
        (INFER, "embed"): _or_words(_embed),
        (INFER, "generate"): _or_words(_generate),
        (INFER, "next"): _next,
    }


def _or_words(function: Callable[..., Any]) -> Callable[..., Any]:
    def run(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except Refused as refusal:
            return refusal.why

    return run


def _emit(call: Call, context: Any, text: str) -> None:
    data = text.encode()
    call.work(context, len(data))
    call.emit(context, data[: call.most()])


def _embed(call: Call, context: Any, alias: str, text: str) -> list[float]:
    call.work(context, len(text))
    vector = call.embed(context, alias, text)
    return list(struct.unpack(f"<{len(vector) // 4}f", vector))


def _generate(call: Call, context: Any, alias: str, prompt: str) -> int:
    call.work(context, len(prompt))
    return call.generate(context, alias, prompt.encode())


def _next(call: Call, context: Any, handle: int) -> component.Variant:
    """Whole characters only, so that a component may take them for text; "" at the end."""
    call.work(context)
    try:
        return component.Variant("ok", call.next(context, handle, 1 << 20).decode())
    except Refused as refusal:
        return component.Variant("err", refusal.why)
