"""An agent's files on a machine of a pool: at the node's own path where machines share one, else pulled and kept.

Only what has the right digest is used; the engine checks once more when it reads. What no engine uses any more is kept
up to a limit, for the next one.
"""

import asyncio
import hashlib
import re
from collections.abc import Callable
from pathlib import Path

from msgspec.structs import replace

from lading_node.engines.errors import EngineError
from lading_node.engines.pool_wire import PART, Part, Want
from lading_node.engines.port import AgentFile, EngineSpec

KEPT_BYTES = 64 << 30
PART_SECONDS = 30.0
_ENDING = re.compile(r"\.[a-z0-9_]{1,16}")


class FileStore:
    def __init__(self, folder: Path, kept: int = KEPT_BYTES) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        self._kept = kept
        self._waiting: dict[tuple[str, bytes], asyncio.Future[Part]] = {}
        self._used: dict[str, set[Path]] = {}

    async def localised(self, seat: str, spec: EngineSpec, ask: Callable[[Want], None]) -> EngineSpec:
        """The spec with paths of this machine; `ask` pulls what is missing. Raises EngineError."""
        self._used[seat] = set()
        files = [await self._local(seat, file, ask) for file in spec.files]
        models = [
            replace(model, files=tuple([await self._local(seat, file, ask) for file in model.files]))
            for model in spec.models
        ]
        return replace(spec, files=tuple(files), models=tuple(models), cache="")

    def part(self, part: Part) -> None:
        waiter = self._waiting.pop((part.seat, part.digest), None)
        if waiter is not None and not waiter.done():
            waiter.set_result(part)

    def leave(self, seat: str) -> None:
        """The engine of this seat has ended."""
        self._used.pop(seat, None)
        used = set().union(*self._used.values())
        idle = sorted((path for path in self._folder.iterdir() if path not in used), key=lambda p: p.stat().st_mtime)
        size = sum(path.stat().st_size for path in idle)
        for path in idle:
            if size <= self._kept:
                return
            size -= path.stat().st_size
            path.unlink()

    async def _local(self, seat: str, file: AgentFile, ask: Callable[[Want], None]) -> AgentFile:
        shared = Path(file.path)
        if shared.is_absolute() and await asyncio.to_thread(_has, shared, file.digest):
            return file
        # The ending tells engines what a file is; the rest of a name has no say here.
        ending = shared.suffix if _ENDING.fullmatch(shared.suffix) else ""
        path = self._folder / f"{file.digest.hex()}{ending}"
        self._used[seat].add(path)
        if not await asyncio.to_thread(_has, path, file.digest):
            await self._pull(seat, file, path, ask)
        return replace(file, path=str(path))

    async def _pull(self, seat: str, file: AgentFile, path: Path, ask: Callable[[Want], None]) -> None:
        part = path.with_name(f"{seat}-{path.name}.part")
        self._used[seat].add(part)
        seen, size = hashlib.sha256(), 0
        try:
            with part.open("wb") as out:
                while data := await self._next(seat, file, size, ask):
                    await asyncio.to_thread(out.write, data)
                    seen.update(data)
                    size += len(data)
                    if len(data) < PART:
                        break
            if seen.digest() != file.digest:
                raise EngineError(
                    "invalid_package", f"The agent's {file.role} is not the file that the manifest names."
                )
            part.replace(path)
        except OSError as error:
            why = f"The agent's {file.role} cannot be kept on the machine: {error.strerror}."
            raise EngineError("resource_exhausted", why) from error
        finally:
            part.unlink(missing_ok=True)

    async def _next(self, seat: str, file: AgentFile, offset: int, ask: Callable[[Want], None]) -> bytes:
        key = (seat, file.digest)
        waiter: asyncio.Future[Part] = asyncio.get_running_loop().create_future()
        self._waiting[key] = waiter
        ask(Want(seat, file.digest, offset))
        try:
            part = await asyncio.wait_for(waiter, PART_SECONDS)
        except TimeoutError:
            why = f"The node did not send the agent's {file.role} within {PART_SECONDS:g} s."
            raise EngineError("timeout", why) from None
        finally:
            self._waiting.pop(key, None)
        if part.gone or part.offset != offset:
            raise EngineError("invalid_package", f"The agent's {file.role} cannot be read on the node.")
        return part.data


def _has(path: Path, digest: bytes) -> bool:
    """Whether the whole file is there and has this digest."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest() == digest
    except OSError:
        return False
