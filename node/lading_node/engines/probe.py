"""The self-test of the isolation tiers: what an enemy tries from inside one, and whether all of it was denied.

A tier passes only when every attempt failed and nothing of them is seen from outside either. Runs the attempts in
a process that ends, under a deadline; never raises.
"""

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from lading_node.engines.attempts import ATTEMPTS
from lading_node.engines.launch import Launch, prepare
from lading_node.engines.port import EngineSpec, Tier
from lading_node.engines.process import kill_all
from lading_node.engines.wall import Wall

DEADLINE_S = 20.0
STALE_SECONDS = 300.0
QUOTA = 8 << 20
MEMORY = 512 << 20
_LINE = 1 << 16
_PROBER = "lading_node.engines.prober"
NAMES = tuple(one.__name__ for one in ATTEMPTS)


class Probe(msgspec.Struct, frozen=True):
    """`held` names the attempts that were denied and the limits that the process reports, `failed` says in words what
    was not denied, or why the test could not be made."""

    tier: Tier
    passed: bool
    held: tuple[str, ...]
    failed: tuple[str, ...]
    took_ms: int
    limits: tuple[str, ...] = ()


def _sweep(folder: Path) -> None:
    """Canaries of a self-test that was killed; those of one that may still run stay."""
    for old in folder.glob(".lading-probe-*-canary"):
        with contextlib.suppress(OSError):
            if time.time() - old.stat().st_mtime > STALE_SECONDS:
                old.unlink()


class Range:
    """What the attempts are aimed at: files with a secret, folders, and listeners that nobody should reach."""

    def __init__(self, folders: Iterable[Path]) -> None:
        self.mark = f".lading-probe-{secrets.token_hex(8)}"
        self.secret = secrets.token_hex(16)
        self.folders = [folder for folder in folders if folder.is_dir()]
        self.canaries: list[Path] = []
        self.listeners: list[list[Any]] = []
        self.reached = 0
        self._boxes: list[socket.socket] = []

    @contextlib.asynccontextmanager
    async def laid(self, own: Path) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            for folder in self.folders:
                canary = folder / f"{self.mark}-canary"
                _sweep(folder)
                try:
                    canary.write_text(self.secret)
                except OSError:
                    continue
                stack.callback(canary.unlink, missing_ok=True)
                self.canaries.append(canary)
            await self._listen(stack, own)
            yield

    async def _listen(self, stack: contextlib.AsyncExitStack, own: Path) -> None:
        path = own / f"{self.mark}-listener"
        stack.callback(path.unlink, missing_ok=True)
        for host in ("0.0.0.0", "::1"):
            with contextlib.suppress(OSError):
                server = await asyncio.start_server(self._count, host, 0)
                stack.push_async_callback(_closed, server)
                port = server.sockets[0].getsockname()[1]
                if host == "::1":
                    self.listeners.append(["AF_INET6", host, port])
                else:
                    self.listeners += [["AF_INET", address, port] for address in ("127.0.0.1", *_addresses())]
        for name in (str(path), "\0" + self.mark):
            with contextlib.suppress(OSError):
                server = await asyncio.start_unix_server(self._count, name)
                stack.push_async_callback(_closed, server)
                self.listeners.append(["AF_UNIX", name])
        # Where everybody may go, as the system's own services have theirs.
        for name in (f"{tempfile.gettempdir()}/{self.mark}-letters", "\0" + self.mark + "-letters"):
            with contextlib.suppress(OSError):
                box = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK))
                box.bind(name)
                self._boxes.append(box)
                self.listeners.append(["letters", name])
                if name[0] != "\0":
                    stack.callback(Path(name).unlink, missing_ok=True)
                    Path(name).chmod(0o777)

    async def _count(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reached += 1
        writer.close()

    def targets(self, scratch: str) -> dict[str, Any]:
        return {
            "canaries": {str(path): self.secret for path in self.canaries},
            "places": [*map(str, self.folders), "/tmp", "/var/tmp", "/dev/shm", "/"],
            "listeners": self.listeners,
            "parent": os.getpid(),
            "quota": QUOTA,
            "memory": MEMORY,
            "mark": self.mark,
            "scratch": scratch,
        }

    def damage(self) -> list[str]:
        """What an attempt has done, as seen from here, whatever it says itself. Removes what it made."""
        seen = [f"{self.reached} connections arrived at this machine's listeners"] if self.reached else []
        for box in self._boxes:
            with contextlib.suppress(BlockingIOError):
                seen.append(f"a datagram of {len(box.recv(64))} bytes arrived")
        for place in {*map(str, self.folders), "/tmp", "/var/tmp", "/dev/shm", "/"}:
            made = Path(place) / self.mark
            if made.exists():
                made.unlink(missing_ok=True)
                seen.append(f"a file was made in {place}")
        for canary in self.canaries:
            if not canary.exists() or canary.read_text() != self.secret:
                seen.append(f"{canary} was changed")
        return seen


async def probe_machine(folder: Path, folders: Sequence[Path] = (), docker: str = "") -> tuple[Probe, ...]:
    """Every tier that this machine could have: W and P, and with a container engine (`docker` is its URL) C and G."""
    from lading_node.engines.probe_container import probe_container
    from lading_node.engines.probe_wasm import probe_wasm

    tiers: tuple[Tier, ...] = ("C", "G") if docker else ()
    process, wasm, *containers = await asyncio.gather(
        probe_process(folder, folders),
        probe_wasm(folder),
        *(probe_container(docker, tier, folder, folders) for tier in tiers),
    )
    if wasm.passed and not process.passed:
        why = "the process around the guest is not confined: see tier P"
        wasm = msgspec.structs.replace(wasm, passed=False, failed=(why,))
    return (wasm, process, *containers)


async def probe_process(
    folder: Path, folders: Iterable[Path] = (), *, wall: Wall | str | None = None, deadline: float = DEADLINE_S
) -> Probe:
    """Tier P on this machine. `folder` is where engines have their scratch, `folders` are more that nobody may see."""
    began = time.perf_counter()
    limits: tuple[str, ...] = ()
    scratch = ""
    try:
        scratch = await asyncio.to_thread(tempfile.mkdtemp, prefix="probe-", dir=folder)
        field = Range([folder, Path.home(), *folders])
        async with field.laid(folder):
            spec = EngineSpec("memory", memory=MEMORY)
            launch = await asyncio.to_thread(prepare, spec, Path(scratch), wall=wall, module=_PROBER, quota=QUOTA)
            lines, status = await _attack(launch, field.targets(scratch), deadline)
            limits = tuple(name for line in lines for name in line.get("held", ()))
            held, failed = judge(lines, status)
            failed += field.damage()
    except Exception as error:  # whatever it is, this tier has not passed
        held, failed = [], [f"the self-test could not be made: {type(error).__name__}: {error}"]
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return Probe("P", not failed, tuple(held), tuple(failed), _since(began), limits)


async def _attack(launch: Launch, targets: dict[str, Any], deadline: float) -> tuple[list[dict[str, Any]], str]:
    """The lines that the process wrote, and how it ended in words ("" when it went through everything)."""
    pipe, null = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(
        *launch.command,
        env=launch.environment,
        cwd=launch.bounds.scratch,
        stdin=pipe,
        stdout=pipe,
        stderr=null,
        pass_fds=tuple(launch.group.joins),
        limit=_LINE,
        start_new_session=True,
    )
    launch.group.close()
    assert process.stdin is not None
    assert process.stdout is not None
    lines: list[dict[str, Any]] = []
    try:
        async with asyncio.timeout(deadline):
            process.stdin.write(msgspec.json.encode(launch.bounds) + b"\n" + json.dumps(targets).encode() + b"\n")
            while (line := await process.stdout.readline()) and len(lines) <= 3 * len(NAMES):
                lines.append(json.loads(line))
            await process.wait()
    except TimeoutError:
        return lines, f"it did not end within {deadline:g} s"
    finally:
        if process.returncode is None:
            kill_all(process.pid)
            process.stdin.close()  # whatever is left, behind a wall that was nearly there, reads until now
            while await process.stdout.read(1 << 16):
                pass  # its end is told only once its pipe is empty
        await process.wait()
        for _ in range(20):
            if launch.group.remove():
                break
            await asyncio.sleep(0.02)
    return lines, f"the process ended with {process.returncode}" if process.returncode else ""


def judge(
    lines: list[dict[str, Any]],
    status: str,
    *,
    tried: tuple[str, ...] = NAMES,
    harmless: frozenset[str] = frozenset(),
) -> tuple[list[str], list[str]]:
    """Which of the attempts `tried` were denied, and in words what was not. `status` says how the process ended, ""
    for well; the last attempt may end it, as that is what its limit does. `harmless` ones may succeed in this tier."""
    got = {line["name"]: line["got"] for line in lines if "name" in line}
    trying = next((line["trying"] for line in reversed(lines) if "trying" in line), "")
    if trying == tried[-1] and trying not in got and status and not status.startswith("it"):
        got[trying] = ""
    held = [name for name in tried if got.get(name) == ""]
    failed = [f"{name.replace('_', ' ')}: {got[name]}" for name in tried if got.get(name) and name not in harmless]
    if missing := [name for name in tried if name not in got]:
        failed.append(f"not tried: {', '.join(missing)} ({status or 'the process ended early'})")
    return held, failed


def _addresses() -> list[str]:
    """This machine's own address as others see it; no packet is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
        try:
            line.connect(("192.0.2.1", 9))
        except OSError:
            return []
        return [str(line.getsockname()[0])]


async def _closed(server: asyncio.Server) -> None:
    server.close()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(1):
            await server.wait_closed()


def _since(began: float) -> int:
    return round((time.perf_counter() - began) * 1000)
