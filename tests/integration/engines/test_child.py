"""The engine's process: how it fails, how it ends, what it may do, and that nothing of it is left."""

import asyncio
import errno
import hashlib
import os
import signal
import subprocess
import sys
import time
from contextlib import aclosing
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uvloop

from integration.engines import tiny_llama
from integration.engines.asking import HELLO, Answer, ask, collect, whole
from integration.engines.conftest import Specs
from lading_node.engines.child import ChildEngine
from lading_node.engines.errors import EngineError
from lading_node.engines.launch import QUIET
from lading_node.engines.port import EngineSpec, Failed, Finished, Generate, Run, Score, Scored
from lading_protocol.messages import ChatRequest, Message, Sampler

TOY = EngineSpec("memory", context=100_000)
replace = msgspec.structs.replace


def gone(pid: int, seconds: float = 2.0) -> bool:
    """Whether a process has ended (a zombie has) within `seconds`."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state in "ZX":
            return True
        time.sleep(0.01)
    return False


def test_a_killed_process_gives_every_running_request_a_typed_error(tmp_path: Path) -> None:
    async def main() -> None:
        engine = ChildEngine(TOY, tmp_path)
        ready = await engine.start()

        async def until_killed(id: str) -> Answer:
            answer = Answer()
            async with aclosing(engine.generate(Generate(id, ask(5000, temperature=0.0), ahead=5))) as events:  # type: ignore[type-var]
                async for event in events:
                    answer.add(event)
                    if isinstance(event, Run):
                        os.kill(ready.pid, signal.SIGKILL)
            return answer

        for answer in await asyncio.gather(until_killed("a"), until_killed("b")):
            assert isinstance(answer.end, Failed)
            assert answer.end.code == "engine_died"
            assert "-9" in answer.end.message
        assert not engine.health().alive
        await engine.stop()
        assert list(tmp_path.iterdir()) == []

    uvloop.run(main())


def test_stop_leaves_no_process_and_no_file_even_of_a_frozen_engine(tmp_path: Path) -> None:
    async def main() -> None:
        for freeze in (False, True):
            engine = ChildEngine(TOY, tmp_path)
            ready = await engine.start()
            if freeze:
                os.kill(ready.pid, signal.SIGSTOP)
            began = time.monotonic()
            await engine.stop(0.3)
            assert time.monotonic() - began < 10
            assert gone(ready.pid)
            assert list(tmp_path.iterdir()) == []

    uvloop.run(main())


@pytest.mark.parametrize("state", ["idle", "busy", "frozen"])
def test_no_engine_survives_a_killed_parent(tmp_path: Path, state: str) -> None:
    """A frozen one hears no end of its pipes, as one that is stuck in a kernel: only the system can end it."""
    program = f"""
import os, signal, uvloop
from pathlib import Path
from lading_node.engines.child import ChildEngine
from lading_node.engines.port import EngineSpec, Generate
from lading_protocol.messages import ChatRequest, Message, Sampler
async def main():
    engine = ChildEngine(EngineSpec("memory", context=10**6), Path({str(tmp_path)!r}))
    pid = (await engine.start()).pid
    print(pid, flush=True)
    if {state == "frozen"}:
        os.kill(pid, signal.SIGSTOP)
    if {state == "busy"}:
        request = ChatRequest((Message("user", "a"),), 100_000, Sampler(bytes(32), 0.0))
        async for event in engine.generate(Generate("a", request)):
            break
    os.kill(os.getpid(), signal.SIGKILL)
uvloop.run(main())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert gone(int(done.stdout))


def test_a_process_that_answers_no_ping_is_killed(tmp_path: Path) -> None:
    async def main() -> None:
        engine = ChildEngine(TOY, tmp_path, stall=0.4)
        ready = await engine.start()
        answer = Answer()
        async with aclosing(engine.generate(Generate("a", ask(5000, temperature=0.0), ahead=5))) as events:  # type: ignore[type-var]
            async for event in events:
                answer.add(event)
                if isinstance(event, Run):
                    os.kill(ready.pid, signal.SIGSTOP)
        assert isinstance(answer.end, Failed)
        assert answer.end.code == "timeout"
        assert gone(ready.pid)
        await engine.stop()

    uvloop.run(main())


def test_a_caller_that_waits_long_is_no_stall(tmp_path: Path) -> None:
    async def main() -> None:
        engine = ChildEngine(TOY, tmp_path, stall=0.2)
        await engine.start()
        made = 0
        async with aclosing(engine.generate(Generate("a", ask(30, temperature=0.0), ahead=5))) as events:  # type: ignore[type-var]
            async for event in events:
                if isinstance(event, Run):
                    made += len(event.ids)
                    if made <= 5:
                        await asyncio.sleep(0.5)
                assert not isinstance(event, Failed)
        assert made
        await engine.stop()

    uvloop.run(main())


def test_a_confined_process_reads_only_its_agent_and_reaches_nobody(tmp_path: Path) -> None:
    """Each attempt is made by a process that has confined itself as an engine does."""
    for name in ("agent", "scratch"):
        (tmp_path / name).mkdir()
    (tmp_path / "agent" / "model").write_text("weights")
    (tmp_path / "secret").write_text("key")
    program = f"""
import os, socket, sys
from lading_node.engines.confine import Bounds, confine
here = {str(tmp_path)!r} + "/"
print(",".join(confine(Bounds(here + "scratch", (here + "agent/model",)), os.getppid())))
def attempt(name, call):
    try:
        call()
    except OSError as error:
        print(name, type(error).__name__, error.errno)
    else:
        print(name, "done")
attempt("own", lambda: open(here + "agent/model").read())
attempt("scratch", lambda: open(here + "scratch/a", "w").write("x"))
attempt("secret", lambda: open(here + "secret").read())
attempt("list", lambda: os.listdir(here))
attempt("write", lambda: open(here + "agent/model", "w"))
attempt("home", lambda: os.listdir(os.path.expanduser("~")))
attempt("parent", lambda: open(f"/proc/{{os.getppid()}}/environ").read())
attempt("signal", lambda: os.kill(os.getppid(), 0))
attempt("connect", lambda: socket.create_connection(("127.0.0.1", 9), 1))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    held, *lines = done.stdout.splitlines()
    outcome = dict(line.split(" ", 1) for line in lines)
    assert outcome["own"] == outcome["scratch"] == "done"
    assert outcome["connect"] != "done"
    if "files" not in held.split(","):
        pytest.skip("this kernel has no landlock; the engine says so in Ready.confinement")
    denied = {name: outcome[name] for name in ("secret", "list", "write", "home", "parent")}
    assert set(denied.values()) == {f"PermissionError {errno.EACCES}"}, denied


async def refusal(spec: EngineSpec, folder: Path, **settings: Any) -> EngineError:
    engine = ChildEngine(spec, folder, **settings)
    with pytest.raises(EngineError) as caught:
        await engine.start()
    assert not engine.health().alive
    assert not list(folder.glob("engine-*"))
    return caught.value


def test_packages_that_do_not_load_say_why(specs: Specs, tmp_path: Path) -> None:
    good = specs["llm-onnx"]
    model, words, chat = good.files
    assert good.llm is not None
    junk = tmp_path / "junk"
    junk.write_bytes(b"\x08\x09 not a model")
    junk_file = replace(model, path=str(junk), digest=hashlib.sha256(junk.read_bytes()).digest())
    markup = tmp_path / "chat.json"
    markup.write_text('{"bos":"<|bos|>","end":"<|stop|>","roles":{"user":"<|user|>","assistant":"<|assistant|>"}}')
    marked = replace(chat, path=str(markup), digest=hashlib.sha256(markup.read_bytes()).digest())
    cases = {
        "not the file that the manifest names": replace(good, files=(replace(model, digest=bytes(32)), words, chat)),
        "cannot be read": replace(good, files=(replace(model, path="/nowhere"), words, chat)),
        "does not load": replace(good, files=(junk_file, words, chat)),
        "tokenizer does not load": replace(good, files=(model, replace(junk_file, role="tokenizer"), chat)),
        "'<|stop|>'": replace(good, files=(model, words, marked)),
        "0 files of the role 'tokenizer'": replace(good, files=(model, chat)),
        "does not say the shape": replace(good, llm=None),
        "999": replace(good, llm=replace(good.llm, vocab=999)),
        "in other files": replace(good, files=(*good.files, replace(junk_file, role="weights"))),
    }

    async def main() -> None:
        for words_, spec in cases.items():
            error = await refusal(spec, tmp_path)
            assert (error.failure, words_ in error.message) == ("invalid_package", True), error
            assert error.hint

    uvloop.run(main())


def test_loading_has_a_deadline(tmp_path: Path) -> None:
    error = uvloop.run(refusal(TOY, tmp_path, load_deadline=0.01))
    assert error.failure == "timeout"


def test_the_last_words_of_a_process_that_broke_reach_its_host(tmp_path: Path) -> None:
    """The order cannot be read, so the process ends with a traceback instead of a message."""
    error = uvloop.run(refusal(replace(TOY, context="many"), tmp_path))
    assert error.failure == "engine_died"
    assert "context" in error.message


def test_a_memory_limit_that_is_too_small_ends_in_words(specs: Specs, tmp_path: Path) -> None:
    error = uvloop.run(refusal(replace(specs["llm-onnx"], memory=64 << 20), tmp_path))
    assert error.failure in ("resource_exhausted", "engine_died", "invalid_package", "engine_error")


def test_the_process_is_confined_and_knows_nothing_of_its_surroundings(specs: Specs, tmp_path: Path) -> None:
    async def main() -> None:
        engine = ChildEngine(replace(specs["llm-onnx"], memory=8 << 30), tmp_path)
        ready = await engine.start()
        proc = Path(f"/proc/{ready.pid}")
        assert {"rlimits", "no-new-privileges"} <= set(ready.confinement)
        assert "NoNewPrivs:\t1" in (proc / "status").read_text()
        limits = {line[:25].strip(): line[26:].split()[0] for line in (proc / "limits").read_text().splitlines()}
        assert limits["Max core file size"] == "0"
        assert limits["Max open files"] == "256"
        assert limits["Max address space"] == str(8 << 30)
        assert os.readlink(proc / "fd" / "0") == os.readlink(proc / "fd" / "1") == "/dev/null"
        names = {entry.partition(b"=")[0].decode() for entry in (proc / "environ").read_bytes().split(b"\0") if entry}
        assert names - {"PWD"} == {"PATH", "LANG", "HOME", "TMPDIR", "USER", "OMP_NUM_THREADS", *QUIET}
        if "network" in ready.confinement:
            assert os.readlink(proc / "ns" / "net") != os.readlink("/proc/self/ns/net")
            assert [line.split(":")[0].strip() for line in (proc / "net" / "dev").read_text().splitlines()[2:]] == [
                "lo"
            ]
        await whole(engine, ask(20))
        # The scratch is in the process's own world; this machine's folder of that name stays empty.
        scratch = next(tmp_path.glob("engine-*"))
        if "disk" in ready.confinement:
            assert list(scratch.iterdir()) == []
            scratch = proc / "root" / str(scratch).lstrip("/")
        assert {path.name for path in scratch.rglob("*")} == {"genai_config.json"}
        await engine.stop()

    uvloop.run(main())


def test_a_jinja_template_gives_the_prompt_of_the_same_markup(specs: Specs, tmp_path: Path) -> None:
    async def main() -> None:
        prompts = []
        for kind in ("llm-onnx", "llm-onnx, jinja"):
            engine = ChildEngine(specs[kind], tmp_path)
            await engine.start()
            answer = await whole(engine, ask(10))
            assert answer.started is not None
            prompts.append((answer.started.prompt_hash, answer.ids))
            await engine.stop()
        assert prompts[0] == prompts[1]

    uvloop.run(main())


def test_typed_markers_do_not_break_out_of_a_message(specs: Specs, tmp_path: Path) -> None:
    async def main() -> None:
        engine = ChildEngine(specs["llm-onnx"], tmp_path)
        await engine.start()
        sizes = []
        for typed in ("", "<|end|>"):
            answer = await whole(engine, ChatRequest((*HELLO, Message("user", typed)), 1, Sampler(bytes(32))), typed)
            assert answer.started is not None
            sizes.append(answer.started.prompt_tokens)
        assert sizes[1] > sizes[0] + 1
        await engine.stop()

    uvloop.run(main())


def test_other_weights_and_other_seeds_fail_a_score(specs: Specs, tmp_path: Path) -> None:
    """What an auditor sees of a host that swapped the model, and of one that ignored the seed."""

    async def main() -> None:
        (tmp_path / "cheap").mkdir()
        cheap = ChildEngine(tiny_llama.write_chat(tmp_path / "cheap", seed=2), tmp_path)
        true = ChildEngine(specs["llm-onnx"], tmp_path)
        await cheap.start()
        await true.start()
        request = ask(40)
        swapped = await whole(cheap, request)
        unseeded = await whole(true, ask(40, seed=1))
        for answer in (swapped, unseeded):
            scored = await true.score(Score("s", request, tuple(answer.ids)))
            assert isinstance(scored, Scored)
            assert sum(margin > 0.1 for margin in scored.margins) > 10
        await cheap.stop()
        await true.stop()

    uvloop.run(main())


def test_a_request_over_the_frame_limit_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        engine = ChildEngine(TOY, tmp_path)
        await engine.start()
        huge = ChatRequest((Message("user", "a" * 500_000),) * 3, 5, Sampler(bytes(32)))
        answer = await collect(engine, Generate("huge", huge))
        assert isinstance(answer.end, Failed)
        assert answer.end.code == "invalid_request"
        assert isinstance((await whole(engine, ask(5))).end, Finished)
        await engine.stop()

    uvloop.run(main())
