"""Before a wasm agent's process starts: native code from the cache, or made by the compile step under its own limits.

The parent's side. What cannot be compiled within the limits is the package's fault and is named so.
"""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import msgspec

from lading_node.engines import wasm_code, wire
from lading_node.engines.errors import EngineError
from lading_node.engines.launch import prepare
from lading_node.engines.port import AgentFile, EngineSpec, Failed, FailureCode, Ready
from lading_node.engines.process import End, EngineProcess, Receive

COMPILER = "lading_node.engines.wasm_compile"
_KILL_S = 1.0


@asynccontextmanager
async def native_code(spec: EngineSpec, scratch: Path) -> AsyncIterator[EngineSpec]:
    """The spec whose `cache` is the native code itself, there at least until the process has loaded it.

    Other kinds pass. Without a cache folder it is compiled every time. Raises EngineError.
    """
    if spec.kind not in wasm_code.MAX_BYTES:
        yield spec
        return
    module = _module(spec)
    key = wasm_code.key(spec.kind, module.digest)
    folder = Path(spec.cache) if spec.cache else Path(tempfile.mkdtemp(prefix="native-", dir=scratch))
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = await asyncio.to_thread(wasm_code.find, folder, key)
        if found is None:
            await _compile(msgspec.structs.replace(spec, files=(module,), models=(), cache=str(folder)), scratch)
            found = await asyncio.to_thread(wasm_code.find, folder, key)
        if found is None:
            why = "The compile step's code is not in the cache, or others may write there."
            raise EngineError("engine_error", why, hint="Give the cache a folder of its own, with mode 0700.")
        yield msgspec.structs.replace(spec, cache=str(found))
    finally:
        if not spec.cache:
            shutil.rmtree(folder, ignore_errors=True)


def _module(spec: EngineSpec) -> AgentFile:
    found = [file for file in spec.files if file.role == "module"]
    if len(found) != 1:
        raise EngineError("invalid_package", f"The agent has {len(found)} files of the role 'module'; one is needed.")
    return found[0]


async def _compile(spec: EngineSpec, scratch: Path) -> None:
    place = Path(tempfile.mkdtemp(prefix="compile-", dir=scratch))
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    process = EngineProcess(place, _receiver(done), _ender(done, spec.kind))
    limited = msgspec.structs.replace(spec, memory=wasm_code.MEMORY[spec.kind], device=False)
    try:
        async with asyncio.timeout(wasm_code.WALL_S[spec.kind]):
            launch = await process.begin(
                partial(prepare, limited, place, module=COMPILER, quota=wasm_code.MAX_NATIVE, written=(spec.cache,))
            )
            process.write(wire.encode(wire.Load(limited, 0, launch.bounds)))
            await done
    except TimeoutError:
        raise _too_much(spec.kind) from None
    except OSError as error:
        raise EngineError("engine_error", f"The compile step cannot be started: {error}.") from error
    finally:
        process.kill("engine_died", "The compile step is over.")
        await process.wait(_KILL_S)
        process.clean()


def _receiver(done: asyncio.Future[None]) -> Receive:
    def receive(message: wire.FromEngine, size: int) -> None:
        if done.done():
            return
        if isinstance(message, Ready):
            done.set_result(None)
        elif isinstance(message, Failed):
            done.set_exception(EngineError(message.code, message.message, hint=message.hint))

    return receive


def _ender(done: asyncio.Future[None], kind: str) -> End:
    def ended(code: FailureCode, why: str) -> None:
        if not done.done():
            # A signal is how every limit ends it.
            killed = "status -" in why
            done.set_exception(_too_much(kind) if killed else EngineError(code, f"The compile step failed. {why}"))

    return ended


def _too_much(kind: str) -> EngineError:
    seconds, memory = wasm_code.CPU_S[kind], wasm_code.MEMORY[kind] >> 30
    return EngineError(
        "invalid_package", f"The module does not compile within {seconds} s of processor time and {memory} GiB."
    )
