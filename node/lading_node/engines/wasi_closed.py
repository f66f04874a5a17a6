"""WASI 0.2 for components, closed: no files, no network, no input, nothing that is printed goes anywhere.

Clocks stand still and chance is always the same, unless the manifest asked for them. Toolchains import all of WASI
whether an agent uses it or not; what is not here ends the call when it is called.
"""

import os
import time
from collections.abc import Callable
from typing import Any

from wasmtime import component

from lading_node.engines.wasm_call import Call
from lading_protocol.parts import Capabilities

# Without a version: the host answers to all of 0.2.
PACKAGES = ("wasi:cli/", "wasi:clocks/", "wasi:filesystem/", "wasi:io/", "wasi:random/", "wasi:sockets/")
_SECOND = 1_000_000_000
_CHANCE = 0x9E3779B97F4A7C15
_MOST_RANDOM = 1 << 16
# Bytes that a stream says it takes at once.
_PERMIT = 4096

Function = Callable[..., Any]


def interface(name: str) -> str:
    """ "wasi:io/poll" of "wasi:io/poll@0.2.9"."""
    return name.partition("@")[0]


def functions(granted: Capabilities, resource: Callable[[str], Any]) -> dict[tuple[str, str], Function]:
    """By interface and name; each is handed the call and wasmtime's context first. `resource` makes a handle."""
    table: dict[tuple[str, str], Function] = {
        ("wasi:cli/environment", "get-environment"): lambda call, context: [],
        ("wasi:cli/environment", "get-arguments"): lambda call, context: [],
        ("wasi:cli/environment", "initial-cwd"): lambda call, context: None,
        ("wasi:filesystem/preopens", "get-directories"): lambda call, context: [],
        ("wasi:cli/stdin", "get-stdin"): lambda call, context: resource("input-stream"),
        ("wasi:cli/stdout", "get-stdout"): lambda call, context: resource("output-stream"),
        ("wasi:cli/stderr", "get-stderr"): lambda call, context: resource("output-stream"),
        **{
            (f"wasi:cli/terminal-{which}", f"get-terminal-{which}"): lambda call, context: None
            for which in ("stdin", "stdout", "stderr")
        },
        **_streams(resource),
        **_clocks(time.time_ns if granted.clock else lambda: 0),
        **_chance(os.urandom if granted.randomness else _always),
    }
    return table


def _streams(resource: Callable[[str], Any]) -> dict[tuple[str, str], Function]:
    def closed(call: Call, context: Any, *given: Any) -> Any:
        call.work(context)
        return component.Variant("err", component.Variant("closed"))

    def swallow(call: Call, context: Any, stream: Any, data: bytes) -> None:
        call.work(context, items=len(data))

    def permit(call: Call, context: Any, stream: Any) -> int:
        call.work(context)
        return _PERMIT

    streams = "wasi:io/streams"
    methods: dict[str, Function] = {
        "[method]input-stream.read": closed,
        "[method]input-stream.blocking-read": closed,
        "[method]output-stream.check-write": permit,
        "[method]output-stream.write": swallow,
        "[method]output-stream.blocking-write-and-flush": swallow,
        "[method]output-stream.flush": lambda call, context, stream: call.work(context),
        "[method]output-stream.blocking-flush": lambda call, context, stream: call.work(context),
        "[method]output-stream.subscribe": lambda call, context, stream: resource("pollable"),
        "[method]input-stream.subscribe": lambda call, context, stream: resource("pollable"),
    }
    polls: dict[tuple[str, str], Function] = {
        ("wasi:io/poll", "[method]pollable.ready"): lambda call, context, pollable: True,
        ("wasi:io/poll", "[method]pollable.block"): lambda call, context, pollable: call.work(context),
        ("wasi:io/poll", "poll"): lambda call, context, pollables: list(range(len(pollables))),
    }
    return {**{(streams, name): function for name, function in methods.items()}, **polls}


def _clocks(now: Callable[[], int]) -> dict[tuple[str, str], Function]:
    def wall(call: Call, context: Any) -> Any:
        call.work(context)
        return _moment(now())

    def monotonic(call: Call, context: Any) -> int:
        call.work(context)
        return now()

    return {
        ("wasi:clocks/wall-clock", "now"): wall,
        ("wasi:clocks/wall-clock", "resolution"): lambda call, context: _moment(_SECOND // 1000),
        ("wasi:clocks/monotonic-clock", "now"): monotonic,
        ("wasi:clocks/monotonic-clock", "resolution"): lambda call, context: _SECOND // 1000,
    }


def _moment(nanoseconds: int) -> component.Record:
    record = component.Record()
    record.seconds, record.nanoseconds = divmod(nanoseconds, _SECOND)
    return record


def _chance(draw: Callable[[int], bytes]) -> dict[tuple[str, str], Function]:
    def some(call: Call, context: Any, count: int) -> bytes:
        count = min(count, _MOST_RANDOM)
        call.work(context, items=count)
        return draw(count)

    def number(call: Call, context: Any) -> int:
        call.work(context)
        return int.from_bytes(draw(8), "little")

    return {
        ("wasi:random/random", "get-random-bytes"): some,
        ("wasi:random/random", "get-random-u64"): number,
        ("wasi:random/insecure", "get-insecure-random-bytes"): some,
        ("wasi:random/insecure", "get-insecure-random-u64"): number,
        ("wasi:random/insecure-seed", "insecure-seed"): lambda call, context: (number(call, context), 0),
    }


def _always(count: int) -> bytes:
    return (_CHANCE.to_bytes(8, "little") * (count // 8 + 1))[:count]
