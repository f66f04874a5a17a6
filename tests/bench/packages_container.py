"""What a container costs: a warm call and a cold start through the engine, against the same Python in a bare process.

The bare process gets the agent's own files and speaks the same ABI over a pipe, so that only the container and the
engine differ; rounds alternate. Images are built twice, from nothing, to see that their bytes repeat.
"""

import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, closing
from functools import cache
from pathlib import Path

import uvloop

from lading_images.base import BuildError
from lading_images.build import Built, build
from lading_images.engine import NoEngine, ensure
from lading_node.engines.container import ContainerEngine
from lading_node.engines.dock import Dock
from lading_node.engines.port import AgentFile, EngineSpec, Finished, Generate, Tier
from lading_protocol.messages import CallRequest

from . import ROOT
from .report import say

TEXT = "the quick brown fox jumps over the lazy dog"
_CALLS = 200
_REQUEST = CallRequest("count", json.dumps({"text": TEXT}).encode(), 4000)
_SDK = ROOT / "docker" / "agents"
_IMPORTS = "import numpy, onnxruntime, tokenizers; print('here', flush=True)"


def rows(folder: Path, quick: bool) -> None:
    """Prints its lines; for whoever puts the benchmarks of packages together."""
    try:
        built = {name: build(name) for name in ("wordcount", "minilm")}
    except BuildError as error:
        for name, bar in (("warm_call", "<= 0.3"), ("start_minilm", None), ("image_repeats", ">= 1")):
            say(f"container_{name}", None, "ms", bar=bar, note=str(error))
        return
    try:
        with ensure() as url:
            uvloop.run(warm_call(built["wordcount"], folder, url, 5 if quick else 15))
            uvloop.run(cold_start(built["minilm"], folder, url, 3 if quick else 7))
            repeats(built["wordcount"], folder, url)
    except NoEngine as error:
        say("container_warm_call", None, "ms", bar="<= 0.3", note=str(error))


class Bare:
    """An agent's program as a child of this one, spoken to as the engine does."""

    def __init__(self, source: Path) -> None:
        pipe = subprocess.PIPE
        environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(_SDK), "OMP_NUM_THREADS": "1"}
        # Without -E, which the image has, because this is how the one file that all agents share is found.
        command = [sys.executable, "-sB", str(source)]
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environment)
        self.receive()

    def send(self, message: object) -> None:
        data = json.dumps(message).encode()
        assert self._process.stdin is not None
        self._process.stdin.write(len(data).to_bytes(4, "big") + data)
        self._process.stdin.flush()

    def receive(self) -> dict[str, object]:
        assert self._process.stdout is not None
        size = int.from_bytes(self._process.stdout.read(4), "big")
        found: dict[str, object] = json.loads(self._process.stdout.read(size))
        return found

    def close(self) -> None:
        self.send({"stop": True})
        self._process.communicate()


@cache
def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


@asynccontextmanager
async def opened(built: Built, folder: Path, url: str, tier: Tier = "C") -> AsyncIterator[ContainerEngine]:
    file = AgentFile("image", str(built.archive), _digest(built.archive))
    engine = ContainerEngine(EngineSpec("oci", (file,), context=131_072, tier=tier), folder, url)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop(0)


async def _ask(engine: ContainerEngine, number: int) -> None:
    async with aclosing(engine.generate(Generate(f"bench:{number}", _REQUEST))) as events:  # type: ignore[type-var]
        last = [event async for event in events][-1]
    assert isinstance(last, Finished), last


async def warm_call(built: Built, folder: Path, url: str, rounds: int) -> None:
    """Medians of calls one after another; the rounds of both sides alternate."""
    inside: list[float] = []
    bare: list[float] = []
    with closing(Bare(_SDK / "wordcount" / "agent.py")) as process:
        async with opened(built, folder, url) as engine:
            for number in range(rounds * _CALLS):
                began = time.perf_counter()
                await _ask(engine, number)
                between = time.perf_counter()
                call = {"call": number, "operation": "count", "input": json.loads(_REQUEST.input), "max_tokens": 4000}
                process.send(call)
                process.receive()
                inside.append(between - began)
                bare.append(time.perf_counter() - between)
    warm, plain = (statistics.median(times[_CALLS:]) * 1e3 for times in (inside, bare))
    note = f"what the container, its engine and our checks add to a call: {warm:.3f} ms against {plain:.3f} ms"
    say("container_warm_call", warm - plain, "ms", bar="<= 0.3", n=len(inside) - _CALLS, note=note)


async def cold_start(built: Built, folder: Path, url: str, rounds: int) -> None:
    """From `start` until the agent has answered its first embedding; the image is loaded before. Imports alone are
    those of the same three packages, by this machine's own Python."""
    inside, imports, whole = [], [], []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-sB", "-c", _IMPORTS], check=True, stdout=subprocess.DEVNULL)  # noqa: ASYNC221
        imports.append(time.perf_counter() - began)
        began = time.perf_counter()
        with closing(Bare(_minilm(folder))):
            whole.append(time.perf_counter() - began)
        began = time.perf_counter()
        async with opened(built, folder, url):
            inside.append(time.perf_counter() - began)
    cold, alone, bare = (statistics.median(times[1:]) for times in (inside, imports, whole))
    limit = round(1.2 * alone + 0.3, 3)
    note = f"1.2 x its imports in a bare process ({alone:.2f} s) + 0.3 s; the same agent in one: {bare:.2f} s"
    say("container_start_minilm", cold, "s", reference=("its imports", alone), bar=f"<= {limit}", n=rounds, note=note)


def _minilm(folder: Path) -> Path:
    """The agent beside its model, as in the image."""
    place = folder / "minilm"
    if not place.exists():
        place.mkdir()
        for source in (_SDK / "minilm" / "agent.py", *(_SDK / "minilm" / "model").iterdir()):
            os.symlink(source, place / source.name)
    return place / "agent.py"


def repeats(built: Built, folder: Path, url: str) -> None:
    again = build("wordcount", folder / "again")
    same = again.archive.read_bytes() == built.archive.read_bytes() and again.id == built.id
    with closing(Dock(url)) as dock:
        held = dock.load(again.archive, frozenset({built.id}), "lading-bench:wordcount")
    size = built.archive.stat().st_size
    note = f"built twice from Debian's packages on; {size:,} bytes; the engine's id is the packer's"
    say("container_image_repeats", int(same and held == built.id), "", bar=">= 1", note=note)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        rows(Path(name).resolve(), "--quick" in sys.argv)
