"""The parent's side of an engine process: load deadline, routing of events to requests, stall watch, kill.

One ChildEngine is one process. When the process ends, for whatever reason, every running request gets a `Failed` value;
starting another one is the caller's decision.
"""

import asyncio
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec

from lading_node.engines import wire
from lading_node.engines.compiling import native_code
from lading_node.engines.errors import EngineError
from lading_node.engines.front import Front, Order
from lading_node.engines.inbox import Arrival
from lading_node.engines.launch import prepare
from lading_node.engines.port import EngineSpec, Failed, FailureCode, Health, Ready
from lading_node.engines.process import EngineProcess
from lading_node.engines.tiers import tier_of
from lading_node.engines.wire import is_last

KILL_S = 1.0
# Bytes that a process may send for requests that nobody waits for any more: so much for each, and in all.
STRAY = 256 << 10
STRAY_MOST = 4 << 20
_PONG = 64


class ChildEngine(Front):
    """An agent in a process of its own."""

    def __init__(
        self,
        spec: EngineSpec,
        scratch: Path,
        *,
        load_deadline: float = 60.0,
        stall: float = 120.0,
        join_s: float = wire.JOIN_S,
        tiered: bool = True,
    ) -> None:
        """`scratch` is an existing folder; the engine gets a folder of its own in it, removed when it ends.

        `tiered`: the tier of its kind passed this machine's self-test. `stall` is how many seconds one step may take
        before the process is killed: a kernel cannot be interrupted.
        """
        super().__init__()
        self._spec = spec
        self._scratch = scratch
        self._load_deadline = load_deadline
        self._stall = stall
        self._join_s = join_s
        self._tiered = tiered
        self._process: EngineProcess | None = None
        self._ready: asyncio.Future[Ready] | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._heard = 0.0
        self._stray = STRAY

    async def start(self) -> Ready:
        if self._process is not None:
            raise EngineError("engine_error", "This engine was started before.", hint="Make a new one.")
        folder = Path(tempfile.mkdtemp(prefix="engine-", dir=self._scratch))
        process = self._process = EngineProcess(folder, self._receive, self._ended)
        self._ready = asyncio.get_running_loop().create_future()
        try:
            async with native_code(self._spec, self._scratch) as spec, asyncio.timeout(self._load_deadline):
                launch = await process.begin(partial(prepare, spec, folder))
                process.write(wire.encode(wire.Load(spec, self._join_s, launch.bounds)))
                return await self._ready
        except BaseException as error:
            self._ready.cancel()
            await self.stop(0)
            if isinstance(error, TimeoutError):
                why = f"The agent did not load within {self._load_deadline:g} s."
                raise EngineError("timeout", why) from None
            if isinstance(error, OSError):
                raise EngineError("engine_error", f"The engine's process cannot be started: {error}.") from error
            raise

    async def relay(self, order: Order, tell: Callable[[Arrival], None]) -> None:
        """Hand every event on as it comes, for a caller further away who says with `take` how far it is."""
        inbox = self._submit(order)
        try:
            while not is_last(event := await inbox.get()):
                tell(event)
            tell(event)
        finally:
            self._leave(inbox)

    def take(self, id: str, count: int) -> None:
        self._write(wire.Taken(id, count))

    def health(self) -> Health:
        process = self._process
        alive = self._running()
        cpu_s, memory = process.usage() if process is not None and alive else (0.0, 0)
        return Health(alive, len(self._inboxes), cpu_s, memory, self._prompt_tokens, self._output_tokens)

    async def stop(self, grace: float = 0.5) -> None:
        process = self._process
        if process is None:
            return
        if process.alive and grace > 0:
            self._write(wire.Stop())
            await process.wait(grace)
        process.kill("engine_died", "The engine was stopped.")
        await process.wait(KILL_S)
        process.clean()

    def last_words(self) -> str:
        """The last line that the process wrote on its stderr, for the host's log."""
        return self._process.last_words() if self._process is not None else ""

    def _running(self) -> bool:
        return self._process is not None and self._process.alive

    def _send(self, order: Order) -> None:
        assert self._process is not None
        self._process.write(wire.encode(order))
        self._heard = asyncio.get_running_loop().time() if self._watch is None else self._heard
        self._watch = self._watch or self._next_check()

    def _send_cancel(self, id: str) -> None:
        self._write(wire.Cancel(id))

    def _left(self, id: str) -> None:
        self._stray = min(STRAY_MOST, self._stray + STRAY)  # what is on its way already
        self._send_cancel(id)

    def _write(self, message: wire.ToEngine) -> None:
        if self._process is not None and self._process.alive:
            self._process.write(wire.encode(message))

    def _receive(self, message: wire.FromEngine, size: int) -> None:
        """Route one message of the process to the request that it belongs to."""
        self._heard = asyncio.get_running_loop().time()
        match message:
            case wire.Pong():
                self._stray -= size
                self._check_flood(self._stray)
                return
            case Ready():
                self._settle(self._seen(message))
                return
            case Failed(id=""):
                self._settle(EngineError(message.code, message.message, hint=message.hint))
                return
        if inbox := self._hand_in(message):
            inbox.room -= size
            self._check_flood(inbox.room)
        else:
            self._stray -= size
            self._check_flood(self._stray)

    def _check_flood(self, room: int) -> None:
        if room < 0 and self._process is not None:
            self._process.kill("agent_error", "The engine sent more than its requests can need, and was killed.")

    def _seen(self, ready: Ready) -> Ready:
        """With the process's number as this machine sees it: inside the wall it has another. And with its tier."""
        assert self._process is not None
        tier = tier_of(self._spec.kind, ready.confinement) if self._tiered else ""
        return msgspec.structs.replace(ready, pid=self._process.pid, tier=tier)

    def _settle(self, result: Ready | EngineError) -> None:
        if self._ready is not None and not self._ready.done():
            if isinstance(result, Ready):
                self._ready.set_result(result)
            else:
                self._ready.set_exception(result)

    def _ended(self, code: FailureCode, why: str) -> None:
        """The process is gone: tell everyone who waits for it. Its last words are for the host only, not for peers."""
        self._settle(EngineError(code, f"{why} {self.last_words()}".strip()))
        self._fail_all(EngineError(code, why))
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    def _next_check(self) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(self._stall / 4, self._check)

    def _check(self) -> None:
        """While there is work, the process must answer a ping within `stall` seconds."""
        self._watch = None
        process = self._process
        if process is None or not process.alive or not self._inboxes:
            return
        if asyncio.get_running_loop().time() - self._heard >= self._stall:
            process.kill("timeout", f"The engine did not answer for {self._stall:g} s and was killed.")
            return
        self._stray = min(STRAY_MOST, self._stray + _PONG)
        process.write(wire.encode(wire.Ping()))
        self._watch = self._next_check()
