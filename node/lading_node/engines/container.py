"""The `oci` engine: a stranger's image in a hardened container, spoken to over its standard input and output.

One ContainerEngine is one container, kept warm; calls run in it side by side, told apart by numbers that the agent was
given. What an agent may say is calls.py's business, the Docker SDK is dock.py's and runs in a thread of its own. The
bytes of a call never pass through a thread: the connection belongs to the event loop.
"""

import asyncio
import hashlib
import platform
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from lading_node.engines import abi
from lading_node.engines.abi import BadFrame, FromAgent, Greeting
from lading_node.engines.answer import Answer
from lading_node.engines.calls import Call, Calls
from lading_node.engines.errors import EngineError, check_fit
from lading_node.engines.port import (
    AgentFile,
    Embed,
    Embedded,
    EngineSpec,
    Failed,
    FailureCode,
    Finished,
    Generate,
    Health,
    Ready,
    Tier,
)
from lading_node.engines.stdio import Stdio
from lading_node.engines.telling import Teller, check_free
from lading_protocol.errors import BadMessage
from lading_protocol.messages import CallRequest, Streamed, operation_of

if TYPE_CHECKING:
    from lading_node.engines.dock import Dock, Plan

P = ParamSpec("P")
T = TypeVar("T")

# How long an agent may go on with a call that it was told to end.
CANCEL_S = 1.0
MEMORY = 1 << 30
# Texts of one call to an agent that embeds, and about how many bytes a number of its answer takes.
GROUP = 16
NUMBER = 24
_RUNTIMES: dict[Tier, str] = {"": "runc", "C": "runc", "G": "runsc"}
_HELD = ("network", "files", "no-new-privileges", "capabilities", "memory", "pids", "rlimits")
_KERNEL: dict[Tier, str] = {"C": "seccomp", "G": "gvisor"}


class ContainerEngine(Teller[Call]):
    """An agent in a container of its own. `scratch` names whose it is: see reap."""

    def __init__(
        self, spec: EngineSpec, scratch: Path, url: str, *, load_deadline: float = 60.0, stall: float = 120.0
    ) -> None:
        """`url` is the container engine's socket. `stall`: how many seconds an agent may be silent about a call."""
        super().__init__(spec.repeats)
        self._spec = spec
        self._owner = owner(scratch)
        self._url = url
        self._load_deadline = load_deadline
        self._stall = stall
        self._name = f"lading-{uuid.uuid4().hex}"
        self._hands = ThreadPoolExecutor(1, "container")
        self._dock: Dock | None = None
        self._link: Stdio | None = None
        self._greeting: asyncio.Future[Greeting] | None = None
        self._calls = Calls()
        self._over: tuple[FailureCode, str] | None = None
        self._gone = asyncio.Event()
        self._ending: asyncio.Task[None] | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._operations: frozenset[str] = frozenset()
        self._width = 0
        self._measured = (0.0, 0)
        self._measuring: asyncio.Future[None] | None = None

    async def start(self) -> Ready:
        if self._greeting is not None:
            raise EngineError("engine_error", "This engine was started before.", hint="Make a new one.")
        loop = asyncio.get_running_loop()
        self._greeting = loop.create_future()
        began = loop.time()
        try:
            dock = self._dock = await self._by_hand(_dock, self._url)
            image = await self._by_hand(self._image, dock)
            began = loop.time()
            async with asyncio.timeout(self._load_deadline):
                return await self._open(dock, image, began)
        except BaseException as error:
            self._greeting.cancel()
            self._end("engine_died", "The engine was stopped.")
            await self.stop(0)
            if isinstance(error, TimeoutError):
                why = f"The agent was not ready within {self._load_deadline:g} s. {self.last_words()}".strip()
                raise EngineError("timeout", why) from None
            raise

    async def _open(self, dock: "Dock", image: str, began: float) -> Ready:
        loop = asyncio.get_running_loop()
        await self._by_hand(dock.create, image, self._plan())
        link = await self._by_hand(dock.attach, self._name)
        _, self._link = await loop.create_unix_connection(lambda: Stdio(self._receive, self._lost), sock=link)
        await self._by_hand(dock.start, self._name)
        assert self._greeting is not None
        checking = self._by_hand(self._check, dock)
        # Where an agent is found out before it was looked at, what it did counts, not that it is gone.
        greeting, pid = await asyncio.gather(asyncio.shield(self._greeting), checking, return_exceptions=True)
        if isinstance(greeting, BaseException):
            raise greeting
        if isinstance(pid, BaseException):
            raise pid
        self._operations = frozenset(greeting.operations)
        if lacking := [one.name for one in self._spec.operations if one.name not in self._operations]:
            raise EngineError("agent_error", f"The agent does not do {', '.join(lacking)}, which its manifest lists.")
        if "embed" in self._operations:
            await self._first_embedding()
        took = round((loop.time() - began) * 1000)
        tier: Tier = self._spec.tier or "C"
        version = f"docker {dock.version}, {_RUNTIMES[tier]}"
        return Ready("oci", version, (*_HELD, _KERNEL[tier]), pid, took, width=self._width, tier=tier)

    def _plan(self) -> "Plan":
        from lading_node.engines.dock import Plan

        spec = self._spec
        return Plan(
            self._name, self._owner, spec.memory or MEMORY, spec.threads, _RUNTIMES[spec.tier or "C"], spec.device
        )

    def _image(self, dock: "Dock") -> str:
        """The id of the agent's image. One that was checked and loaded before is known by its archive's digest."""
        if self._spec.tier not in _RUNTIMES:
            raise EngineError("engine_error", f"A container is no isolation of tier {self._spec.tier!r}.")
        file = _image_file(self._spec)
        tag = f"lading-agent:{file.digest.hex()}"
        if held := dock.image(tag):
            return held
        from lading_node.engines.archive import check_archive

        archive = check_archive(Path(file.path), file.digest, _MACHINES.get(platform.machine(), platform.machine()))
        return dock.load(Path(file.path), archive.ids, tag)

    def _check(self, dock: "Dock") -> int:
        """That the kernel holds the limits, not only the engine's notes; returns the process id. In the thread."""
        from lading_node.engines.dock import PIDS

        state = dock.state(self._name)
        if state.running and state.pid:
            usage = dock.usage(self._name)
            wanted = {"memory_limit": self._spec.memory or MEMORY, "pids_limit": PIDS}
            lost = [name for name, value in wanted.items() if usage[name] != value]
            # Of a container that has ended meanwhile the kernel has nothing to say.
            if lost and dock.state(self._name).running:
                raise EngineError("engine_error", f"The kernel does not hold the container's {' and '.join(lost)}.")
        return state.pid

    async def stop(self, grace: float = 0.5) -> None:
        link = self._link
        if link is not None and self._over is None and grace > 0:
            link.write(abi.stop())
            try:
                await asyncio.wait_for(link.closed.wait(), grace)
            except TimeoutError:
                pass
        self._end("engine_died", "The engine was stopped.")
        await self._gone.wait()

    def last_words(self) -> str:
        """The last line that the agent wrote on its stderr, for the host's log."""
        return self._link.last_words() if self._link is not None else ""

    def _lost(self, fault: str) -> None:
        """The connection is over, or must be."""
        if fault:
            self._end("agent_error", f"The agent broke its ABI and was killed. {fault}")
        elif self._over is None and self._ending is None:
            self._ending = asyncio.get_running_loop().create_task(self._autopsy())

    async def _autopsy(self) -> None:
        """Why a container ended by itself; then it is removed."""
        assert self._dock is not None
        code: FailureCode = "engine_died"
        why = "The agent's container ended."
        try:
            state = await self._by_hand(self._dock.state, self._name)
            why = f"The agent's container ended with status {state.status}."
            if state.out_of_memory:
                code, why = "resource_exhausted", "The agent ran out of the memory that this host gives it."
        except EngineError:
            pass
        self._ending = None
        self._end(code, why)

    def _end(self, code: FailureCode, why: str) -> None:
        """No call after this, and no container soon. The first reason given is the one that callers hear."""
        if self._over is not None:
            return
        self._over = (code, why)
        if self._greeting is not None and not self._greeting.done():
            self._greeting.set_exception(EngineError(code, f"{why} {self.last_words()}".strip()))
            self._greeting.exception()  # whoever waited for it has given up, or hears it
        self._calls.fail(code, why)
        if self._watch is not None:
            self._watch.cancel()
        if self._link is not None:
            self._link.abort()
        self._ending = asyncio.get_running_loop().create_task(self._bury())

    async def _bury(self) -> None:
        try:
            if self._dock is not None:
                await self._by_hand(self._dock.remove, self._name)
                await self._by_hand(self._dock.close)
        except EngineError:
            pass  # the engine is gone or hangs; what it leaves is reaped when the node starts again
        finally:
            self._hands.shutdown(wait=False)
            self._gone.set()

    def _by_hand(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> "asyncio.Future[T]":
        """In the engine's own thread: one thing after the other, so that a removal comes after the creation."""
        return asyncio.get_running_loop().run_in_executor(self._hands, lambda: work(*args, **kwargs))

    def _begin(self, order: Generate, prompt: int) -> tuple[Call, Answer]:
        request = order.request
        if order.emitted:
            raise EngineError("invalid_request", "An answer of this agent cannot be resumed.", hint="Ask again.")
        data = self._input(request)
        check_fit(prompt, request.max_tokens, self._spec.context)
        stops = () if isinstance(request, CallRequest) else request.stop
        answer = Answer(stops, request.max_tokens)
        call = self._submit(order.id, operation_of(request), data, answer, request.max_tokens, order.ahead)
        return call, answer

    def _took(self, talk: Call) -> None:
        self._flow()

    async def _more(self, talk: Call) -> None:
        await talk.news()

    async def _close(self, talk: Call) -> None:
        self._leave(talk)

    def _input(self, request: Streamed) -> bytes:
        name = operation_of(request)
        if name not in self._operations or name == "embed":
            raise EngineError(
                "invalid_request", f"This agent does not {name}.", hint="Ask for what its manifest lists."
            )
        if not isinstance(request, CallRequest):
            return abi.chat_input(request)
        most = next((one.max_input for one in self._spec.operations if one.name == name), 0)
        if most and len(request.input) > most:
            raise EngineError("invalid_request", f"The input has {len(request.input)} bytes, {name} takes {most}.")
        if not abi.is_json(request.input):
            raise EngineError("invalid_request", "The input is no JSON, or is nested too deep.")
        return request.input

    async def embed(self, order: Embed) -> Embedded | Failed:
        if "embed" not in self._operations:
            return EngineError("invalid_request", "This agent does not embed.", hint="Send a chat or a call.").as_event(
                order.id
            )
        vectors: list[bytes] = []
        tokens: list[int] = []
        for group in _groups(list(order.request.inputs), self._width):
            found = await self._embed(order.id, group)
            if isinstance(found, Failed):
                return found
            vectors += found[0]
            tokens += found[1]
        return Embedded(order.id, self._width, tuple(vectors), tuple(tokens))

    async def _embed(self, id: str, texts: list[str]) -> tuple[list[bytes], list[int]] | Failed:
        try:
            call = self._submit(id, "embed", abi.embed_input(texts), None, 1, 0)
        except EngineError as error:
            return error.as_event(id)
        try:
            while not call.done:
                await call.news()
            if isinstance(call.end, Failed):
                return call.end
            return abi.rows(call.output, len(texts), self._width)
        except BadFrame as error:
            return EngineError("agent_error", f"The agent broke its ABI. {error}").as_event(id)
        finally:
            self._leave(call)

    async def _first_embedding(self) -> None:
        """Tells how wide vectors are, and warms the agent up. Raises EngineError."""
        found = await self._embed("", ["a"])
        if isinstance(found, Failed):
            raise EngineError(found.code, f"A first embedding failed: {found.message}", hint=found.hint)
        self._width = len(found[0][0]) // 4

    def cancel(self, id: str) -> None:
        if (call := self._calls.find(id)) is not None:
            count = call.answer.count if call.answer is not None else 0
            call.close(Finished(id, "cancelled", count))
            self._leave(call)

    def health(self) -> Health:
        alive = self._link is not None and self._over is None
        if alive and self._measuring is None:
            self._measuring = asyncio.ensure_future(self._measure())
        cpu_s, memory = self._measured if alive else (0.0, 0)
        return Health(alive, len(self._calls), cpu_s, memory, self._prompt_tokens, self._output_tokens)

    async def _measure(self) -> None:
        """For the next one who asks: asking the engine takes longer than an event loop may."""
        assert self._dock is not None
        try:
            usage = await self._by_hand(self._dock.usage, self._name)
            self._measured = usage["cpu_ns"] / 1e9, usage["memory"]
        except (EngineError, RuntimeError):
            pass  # it has just ended
        finally:
            self._measuring = None

    def _submit(self, id: str, operation: str, data: bytes, answer: Answer | None, most: int, ahead: int = 0) -> Call:
        """Raises EngineError."""
        link = self._link
        if link is None or self._over is not None:
            raise EngineError("engine_died", "The engine is not running.")
        slots = self._spec.slots
        taken = len(self._calls) >= slots or self._calls.leaving >= 2 * slots + 2 or link.clogged
        check_free(id, self._calls.has(id), taken, slots)
        now = asyncio.get_running_loop().time()
        call = self._calls.open(id, answer, most, ahead, now)
        try:
            link.write(abi.call(call.number, operation, data, most))
        except BadMessage as error:
            self._calls.drop(call)
            raise EngineError("invalid_request", f"The request is too large. {error.message}", hint="") from None
        self._flow()
        self._watch = self._watch or self._next_check()
        return call

    def _leave(self, call: Call) -> None:
        """Tell the agent to end a call that nobody waits for; it obeys within CANCEL_S, or is killed."""
        if self._over is None and self._calls.leave(call):
            assert self._link is not None
            self._link.write(abi.cancel(call.number))
            asyncio.get_running_loop().call_later(CANCEL_S, self._insist, call.number)
            self._flow()

    def _insist(self, number: int) -> None:
        if self._calls.is_leaving(number):
            why = f"The agent went on for {CANCEL_S:g} s with a call that it was told to end, and was killed."
            self._end("agent_error", why)

    def _receive(self, payload: bytes) -> None:
        """One message of the agent. Raises BadFrame."""
        message = abi.read(payload)
        if isinstance(message.ready, Greeting):
            self._greet(message.ready)
            return
        if self._greeting is None or not self._greeting.done():
            raise BadFrame("It speaks before it said that it is ready.")
        self._route(message, len(payload))

    def _greet(self, greeting: Greeting) -> None:
        assert self._greeting is not None
        if self._greeting.done():
            raise BadFrame("It says twice that it is ready.")
        self._greeting.set_result(greeting)

    def _route(self, message: FromAgent, size: int) -> None:
        complete = self._calls.receive(message, size, asyncio.get_running_loop().time())
        if complete is not None:
            complete.close(None)
            self._leave(complete)
        self._flow()

    def _flow(self) -> None:
        """Listen to the agent unless every caller has enough for now: then it waits as they do."""
        if self._link is not None:
            self._link.hold(self._calls.all_ahead)

    def _next_check(self) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(self._stall / 4, self._look)

    def _look(self) -> None:
        """An agent that is silent about a call for too long loses it; if it does not obey, _insist ends it."""
        self._watch = None
        now = asyncio.get_running_loop().time()
        for call in self._calls:
            if call.ahead:
                call.heard = now
            elif now - call.heard >= self._stall:
                why = f"The agent was silent for {self._stall:g} s."
                call.close(EngineError("timeout", why).as_event(call.id))
                self._leave(call)
        if len(self._calls):
            self._watch = self._next_check()


_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


def owner(scratch: Path) -> str:
    """What marks the containers of one node: two nodes of a machine have different scratch folders."""
    return hashlib.sha256(str(scratch.resolve()).encode()).hexdigest()[:32]


def reap(url: str, scratch: Path) -> int:
    """Remove what an earlier life of this node left behind; returns how many. Blocks. Raises EngineError."""
    with closing(_dock(url)) as dock:
        found = dock.left_over(owner(scratch))
        for name in found:
            dock.remove(name)
    return len(found)


def _dock(url: str) -> "Dock":
    """The import takes longer than an event loop may."""
    from lading_node.engines.dock import Dock

    return Dock(url)


def _image_file(spec: EngineSpec) -> AgentFile:
    found = [file for file in spec.files if file.role == "image"]
    if len(found) != 1:
        raise EngineError("invalid_package", f"The agent has {len(found)} images; one is needed.")
    return found[0]


def _groups(texts: list[str], width: int) -> list[list[str]]:
    """As many texts a call as one frame can ask and answer."""
    most = max(1, min(GROUP, (1 << 19) // (NUMBER * max(width, 1))))
    groups: list[list[str]] = [[]]
    for text in texts:
        if groups[-1] and (len(groups[-1]) >= most or sum(map(len, groups[-1])) + len(text) > 1 << 16):
            groups.append([])
        groups[-1].append(text)
    return groups
