"""Moving packages: throughput beside plain TCP and HTTP, a cold agent's first token, what updates cost, and memory.

Part of bench_packages; `rows` prints. Givers and the taker are processes of their own on loopback (packages_carriers);
rounds alternate, and ratios are medians over rounds, because the machine is shared. Files are taken into memory
(/dev/shm) where there is such a place, so that the disk's write-back does not decide.
"""

import asyncio
import contextlib
import io
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import uvloop

from crates import manifest_of, package, store_large
from integration.engines import chat_agents
from lading.blobs import BlobStore, fetch_package, serve_blobs
from lading.packages.delta import make_delta
from lading_net.direct import DirectTransport
from lading_node.engines.child import ChildEngine
from lading_node.engines.port import EngineSpec, Generate, Run
from lading_protocol.ids import AgentId
from lading_protocol.keys import PrivateKey
from lading_protocol.manifest import dump
from lading_protocol.messages import BLOB, ChatRequest, Message, Sampler

from . import ROOT
from .processes import Program, program
from .report import say

MIB = 1 << 20
FETCHER = ROOT / "tests" / "integration" / "packages" / "fetcher.py"
_CARRIERS = "tests.bench.packages_carriers"
Cost = dict[str, float]


def rows(folder: Path, rounds: int, *, quick: bool = False) -> None:
    """`folder` is empty, and the caller's to remove."""
    large = 128 if quick else 512
    file = folder / "file"
    with file.open("wb") as out:
        for _ in range(large):
            out.write(os.urandom(MIB))
    store = BlobStore(folder / "store")
    agent = AgentId(store.put(dump(manifest_of((store_large(store, "w.bin", file),)))))
    throughput(folder, agent, file, rounds)
    memory(folder, store, agent, large)
    updates(folder)
    uvloop.run(cold_start(folder, rounds))


# Throughput -----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _carriers(folder: Path, file: Path) -> Iterator[tuple[Program, dict[str, list[Any]], list[str]]]:
    """The taker, the errands of the two references, and the endpoints of four peers."""
    shm = Path("/dev/shm")
    place = (shm if os.access(shm, os.W_OK) else folder) / f"lading-bench-{os.getpid()}"
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(program("-m", _CARRIERS, "lading", str(folder / "store"))) for _ in range(4)]
        tcp = stack.enter_context(program("-m", _CARRIERS, "tcp", str(file)))
        http = stack.enter_context(program("-m", _CARRIERS, "http", str(file)))
        taker = stack.enter_context(program("-m", _CARRIERS, "take", str(place)))
        errands = {"tcp": ["tcp", tcp.facts["port"]], "http": ["http", http.facts["port"]]}
        yield taker, errands, [peer.facts["endpoint"] for peer in peers]


def throughput(folder: Path, agent: AgentId, file: Path, rounds: int) -> None:
    with _carriers(folder, file) as (taker, errands, endpoints):
        for name, count in (("one", 1), ("four", 4)):
            errands[name] = ["lading", agent.hex(), endpoints[:count]]
        found: dict[str, list[Cost]] = {name: [] for name in errands}
        for at in range(rounds + 1):
            for name in errands if at % 2 else reversed(errands):
                taker.tell(errands[name])
                cost = taker.hear()
                if at:  # the first round only warms up
                    found[name].append(cost)
    size = file.stat().st_size
    references = {
        "tcp": ("raw asyncio TCP copy into a file, unchecked and in the clear", "tcp"),
        "http": ("aiohttp into a file, sha256 of the whole, in the clear", "http"),
        "one": ("one peer", "one"),
    }
    for name, reference, note in (
        ("one", "tcp", "sealed, each chunk and the whole hashed, synced"),
        ("one", "http", "sealed, each chunk and the whole hashed, synced"),
        ("four", "tcp", f"five processes on {os.cpu_count()} cores"),
        ("four", "one", f"five processes on {os.cpu_count()} cores"),
    ):
        _say_speed(
            f"freight_{name}_peer{'s' if name == 'four' else ''}", size, found, (name, *references[reference]), note
        )
    cpu = statistics.median(cost["cpu"] for cost in found["one"]) / size * 1e9
    other = statistics.median(cost["cpu"] for cost in found["http"]) / size * 1e9
    say(
        "freight_cpu_per_gb", cpu, "s", reference=(references["http"][0], other), n=rounds, note="of the taking process"
    )


def _say_speed(name: str, size: int, found: dict[str, list[Cost]], which: tuple[str, str, str], note: str) -> None:
    mine, words, theirs = which
    pairs = [(one["seconds"], other["seconds"]) for one, other in zip(found[mine], found[theirs], strict=True)]
    value = size / statistics.median(one for one, _ in pairs) / 1e6
    reference = size / statistics.median(other for _, other in pairs) / 1e6
    ratio = statistics.median(other / one for one, other in pairs)
    say(f"{name}_to_{theirs}", value, "MB/s", reference=(words, reference), ratio=ratio, n=len(pairs), note=note)


# Memory ---------------------------------------------------------------------------------------------------------------


def memory(folder: Path, store: BlobStore, large: AgentId, size: int) -> None:
    """Peaks of whole processes that fetch."""
    small = package(store, {"w.bin": ("weights", os.urandom(size // 8 * MIB))})
    with program("-m", _CARRIERS, "lading", str(store.folder)) as peer:
        peaks = [_peak(folder, agent, peer.facts["endpoint"]) for agent in (small, large)]
    say(
        "freight_peak_memory",
        peaks[1] / 1024,
        "MiB",
        reference=(f"the same for a file of {size // 8} MiB", peaks[0] / 1024),
        bar="<= 1.25 of the reference",
        note=f"peak resident memory of a process that fetches a file of {size} MiB",
    )


def _peak(folder: Path, agent: AgentId, endpoint: str) -> int:
    """In KiB."""
    command = [sys.executable, str(FETCHER), str(folder / f"peak-{agent.hex()[:8]}"), agent.hex(), endpoint]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


# Updates --------------------------------------------------------------------------------------------------------------


def updates(folder: Path) -> None:
    """Our chat model's weights in bf16, tuned as numbers: a change of normal noise of 1 % of each tensor's spread.

    The change is made in f32 and rounded, as training does; the adapter is of rank 8 on every matrix.
    """
    weights = _chat_weights()
    full = _safetensors(weights)
    tuned = {name: _tuned(name, array) for name, array in weights.items()}
    last = next(name for name in reversed(weights) if weights[name].ndim == 2)
    adapter = {f"{name}.{part}": array for name, matrix in weights.items() for part, array in _rank8(matrix).items()}
    # The same bytes of noise cost as much whatever they say: an adapter travels as it is.
    for name, size, note in (
        (
            "adapter",
            len(_safetensors(adapter)),
            "a blob of its own, rank 8 on every matrix; the base is not sent again",
        ),
        ("last_layer", _delta(folder, full, _safetensors(weights | {last: tuned[last]})), f"only {last} was tuned"),
        ("full", _delta(folder, full, _safetensors(tuned)), "every tensor was tuned"),
    ):
        reference = ("the whole model", len(full))
        note += "; our chat model in bf16, noise of 1 % of each tensor's spread"
        say(f"freight_update_{name}", size, "bytes", reference=reference, note=note)


def _chat_weights() -> dict[str, Any]:
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(str(chat_agents.MODEL / "model.onnx")).graph
    arrays = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    return {
        name: array for name, array in arrays.items() if array.dtype == "float32" and array.ndim and array.size > 64
    }


def _tuned(name: str, array: Any) -> Any:
    import numpy as np

    rng = np.random.default_rng(sum(name.encode()))
    return array + rng.standard_normal(array.shape).astype(np.float32) * np.float32(0.01) * array.std()


def _rank8(matrix: Any) -> dict[str, Any]:
    import numpy as np

    if matrix.ndim != 2:
        return {}
    rng = np.random.default_rng(8)
    down, up = rng.standard_normal((matrix.shape[0], 8)), rng.standard_normal((8, matrix.shape[1]))
    return {"a": down.astype(np.float32), "b": up.astype(np.float32)}


def _safetensors(arrays: dict[str, Any]) -> bytes:
    """As bf16, rounded to the nearest."""
    header, bodies, at = {}, [], 0
    for name, array in arrays.items():
        bits = array.view("uint32")
        body = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("uint16").tobytes()
        header[name] = {"dtype": "BF16", "shape": list(array.shape), "data_offsets": [at, at + len(body)]}
        bodies.append(body)
        at += len(body)
    head = json.dumps(header).encode()
    return len(head).to_bytes(8, "little") + head + b"".join(bodies)


def _delta(folder: Path, old: bytes, new: bytes) -> int:
    (folder / "old").write_bytes(old)
    (folder / "new").write_bytes(new)
    return make_delta(folder / "old", folder / "new", io.BytesIO())


# A cold agent ---------------------------------------------------------------------------------------------------------


async def cold_start(folder: Path, rounds: int) -> None:
    """From nothing to the first token, and each part of it in the same round."""
    contents = {
        name: (role, (chat_agents.MODEL / name).read_bytes())
        for name, role in (
            ("model.onnx", "model"),
            ("tokenizer.json", "tokenizer"),
            ("chat_template.json", "chat_template"),
        )
    }
    source, spec = BlobStore(folder / "agents"), chat_agents.onnx_chat()
    agent = package(source, contents)
    giver, taker = (DirectTransport(PrivateKey(os.urandom(32))) for _ in range(2))
    giver.handle(BLOB, serve_blobs(source))
    link = await taker.dial(await giver.listen("/ip4/127.0.0.1/tcp/0"), None)
    found: list[list[float]] = []
    for at in range(rounds + 1):
        marks, place = [time.perf_counter()], folder / f"cold-{at}"
        store = BlobStore(place / "store")
        await fetch_package(lambda: [link], agent, store)
        marks.append(time.perf_counter())
        await asyncio.to_thread(store.materialise, agent, place / "agent")
        marks.append(time.perf_counter())
        await _first_token(_at(spec, place / "agent"), place, marks)
        found.append([(after - before) * 1e3 for before, after in pairwise(marks)])
    await taker.close()
    await giver.close()
    parts = {
        name: statistics.median(one[at] for one in found[1:])
        for at, name in enumerate(("fetch", "verify", "load", "token"))
    }
    total = statistics.median(sum(one) for one in found[1:])
    size = sum(len(data) for _, data in contents.values())
    say(
        "freight_cold_first_token",
        total,
        "ms",
        reference=("load and first token alone", parts["load"] + parts["token"]),
        n=rounds,
        note=f"our chat model, {size / 1e6:.1f} MB, over a live link: fetched, laid out, loaded, first token",
    )
    for name, what in (
        ("fetch", "chunks proved and synced"),
        ("verify", "laid out, every byte hashed again"),
        ("load", "the engine's process starts and loads"),
        ("token", "prompt to first token"),
    ):
        say(f"freight_cold_{name}", parts[name], "ms", n=rounds, note=what)


def _at(spec: EngineSpec, folder: Path) -> EngineSpec:
    import msgspec

    files = tuple(msgspec.structs.replace(file, path=str(folder / Path(file.path).name)) for file in spec.files)
    return msgspec.structs.replace(spec, files=files)


async def _first_token(spec: EngineSpec, place: Path, marks: list[float]) -> None:
    (place / "scratch").mkdir()
    engine = ChildEngine(spec, place / "scratch")
    await engine.start()
    marks.append(time.perf_counter())
    request = ChatRequest((Message("user", "Tell me a story about a fox."),), 4, Sampler(bytes(32), 0.0))
    async for event in engine.generate(Generate("first", request)):
        if isinstance(event, Run):
            marks.append(time.perf_counter())
            break
    await engine.stop()
