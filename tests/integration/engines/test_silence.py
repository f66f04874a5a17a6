"""No engine talks to anybody or writes outside of its scratch: not once, and not because it is kept from it.

Each kind's process is watched from its first instruction on, through loading and every kind of request. The variable
`CI` is not set in it: onnxruntime, for one, is silent in CI and nowhere else.
"""

import asyncio
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from integration.engines import tracing
from integration.engines.asking import ask, collect
from integration.engines.conftest import Specs
from integration.engines.tiny_torch import require_torch
from lading_node.engines import child, launch, probe_wasm
from lading_node.engines.child import ChildEngine
from lading_node.engines.port import AgentFile, Embed, EngineSpec, Generate, Score
from lading_protocol.messages import EmbedRequest
from tools import require_program

IN_CI = bool(os.environ.get("CI"))
Watched = Callable[[EngineSpec], list[str]]


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Watched:
    """Runs an engine through everything it can do, and gives what it should not have done."""
    require_program("strace")
    log, scratches = tmp_path / "strace.log", []
    real = launch.prepare

    def prepare(spec: EngineSpec, scratch: Path) -> launch.Launch:
        made = real(spec, scratch)
        assert "CI" not in made.environment
        scratches.append(made.bounds.scratch)
        return tracing.traced(made, log)

    monkeypatch.setattr(child, "prepare", prepare)
    monkeypatch.setenv("CI", "1")  # must not reach the engine

    def run(spec: EngineSpec) -> list[str]:
        (tmp_path / "work").mkdir(exist_ok=True)
        asyncio.run(_use(spec, tmp_path / "work"))
        lines = log.read_text(errors="replace").splitlines()
        assert any(tracing.RUNNER in line for line in lines), "strace saw no engine"
        return tracing.violations(lines, scratches[-1])

    return run


@asynccontextmanager
async def _running(spec: EngineSpec, folder: Path) -> AsyncIterator[ChildEngine]:
    engine = ChildEngine(spec, folder)
    await engine.start()
    yield engine
    await engine.stop(5.0)


async def _use(spec: EngineSpec, folder: Path) -> None:
    async with _running(spec, folder) as engine:
        answer = await collect(engine, Generate("chat", ask(24)))
        await engine.score(Score("score", ask(24), tuple(answer.ids)))
        await collect(engine, Generate("more", ask(24), emitted=tuple(answer.ids[:5])))
        await engine.embed(Embed("embed", EmbedRequest(("The fox finds the lantern.", "a"))))


@pytest.mark.parametrize("kind", ["toy, child", "llm-onnx", "llm-onnx, jinja", "onnx", "torch", "wasm-core"])
def test_an_engine_neither_talks_nor_writes(watched: Watched, specs: Specs, tmp_path: Path, kind: str) -> None:
    if kind == "torch":
        if not IN_CI:
            pytest.skip("its imports take a quarter of a minute under strace: set CI")
        require_torch()
    assert watched(guest(tmp_path) if kind == "wasm-core" else specs[kind]) == []


def guest(folder: Path) -> EngineSpec:
    """A module that answers everything with nothing."""
    module = folder / "guest.wasm"
    module.write_bytes(probe_wasm.ENEMY)
    return EngineSpec("wasm-core", (AgentFile("module", str(module), hashlib.sha256(probe_wasm.ENEMY).digest()),))


_PLANTED = """
import os, socket
from lading_node.engines import load, runner
honest = load.load
def planted(spec, scratch):
    try:
        {deed}
    except OSError:
        pass
    return honest(spec, scratch)
load.load = planted
runner.main()
"""
_DEEDS = {
    "writes to the user's home": f"open({os.path.expanduser('~/.planted')!r}, 'w')",
    "writes beside its scratch": "open(os.path.join(os.getcwd(), '..', 'planted'), 'w')",
    "makes a folder in /tmp": "os.mkdir('/tmp/planted')",
    "changes its own program": "open(load.__file__, 'a')",
    "removes a file": f"os.unlink({os.path.expanduser('~/.planted')!r})",
    "connects": "socket.create_connection(('127.0.0.1', 9), 1)",
    "sends a datagram": "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9))",
    "asks for a name": "socket.getaddrinfo('example.org', 80)",
    "starts a program": "os.execv('/bin/true', ['true'])",
    "forks": "os.fork()",
}


@pytest.mark.parametrize("deed", _DEEDS)
def test_an_engine_that_does_is_caught(
    watched: Watched, specs: Specs, monkeypatch: pytest.MonkeyPatch, deed: str
) -> None:
    """An engine with a deed planted in it: refused by the confinement, and seen all the same."""
    code = _PLANTED.format(deed=_DEEDS[deed]) + f"# {tracing.RUNNER}\n"
    real = launch._command

    def command(*arguments: object) -> tuple[str, ...]:
        made = list(real(*arguments))  # type: ignore[arg-type]
        at = made.index("-m")
        return (*made[:at], "-c", code, *made[at + 2 :])

    monkeypatch.setattr(launch, "_command", command)
    assert watched(specs["toy, child"]) != []
    assert not Path("~/.planted").expanduser().exists()


def test_the_library_would_talk_if_it_were_let(tmp_path: Path) -> None:
    """onnxruntime as it comes: that the watching sees what its makers do shows what silence is worth."""
    require_program("strace")
    log = tmp_path / "strace.log"
    program = f"import onnxruntime  # {tracing.RUNNER}\nimport time; time.sleep(0.3)"
    command = (sys.executable, "-I", "-B", "-c", program)
    made = tracing.traced(launch.Launch(command, {}, None, None), log)  # type: ignore[arg-type]
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path / "home")}
    (tmp_path / "home").mkdir()
    inside = ["unshare", "--net"] if os.getuid() == 0 else ["unshare", "--user", "--net"]
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare to keep it from the network")
    subprocess.run([*inside, *made.command], env=environment, timeout=60, check=True)
    found = tracing.violations(log.read_text().splitlines(), str(tmp_path / "scratch"))
    if not found:
        pytest.skip("this version of onnxruntime is silent by itself")
