"""Known-good jobs on this machine, audited by another engine of it: what a calibration table is made of.

Hosts and auditors are the very sandboxed engines that serve. Set-ups alternate as they do in service: one job alone,
several at once, resumed in the middle, with one thread and with two.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from lading.blobs import BlobStore
from lading_node.core.calibrating import Measured, Shown, measured
from lading_node.engines.errors import EngineError
from lading_node.engines.factory import Means, open_engine
from lading_node.engines.port import Engine, Failed, Finished, Generate, Ready, Run, Score, Started, Traced
from lading_node.engines.spec import Limits, engine_spec
from lading_node.means_here import means_here
from lading_protocol.errors import LadingError
from lading_protocol.ids import AgentId
from lading_protocol.manifest import Manifest
from lading_protocol.messages import ChatRequest, Message, Sampler
from lading_protocol.parts import Runtime
from lading_protocol.sketches import chunk_means, errors

SLOTS = 4
MOST_THREADS = 2
# Sampling is asked for in many ways; the cuts of top-k and top-p are where honest hosts may differ.
SAMPLINGS = ((1.0, 1.0, 0), (1.0, 1.0, 0), (0.7, 0.95, 0), (1.0, 0.9, 40), (0.0, 1.0, 0))
ASKS = (
    "Tell me a story about {a} and {b}.",
    "Explain {a} to somebody who only knows {b}.",
    "Write a letter from {a} to {b}.",
    "List ten things that {a} and {b} have in common.",
    "What would happen if {a} met {b}? Think step by step.",
    "Write a short program that counts {a}, and describe how it treats {b}.",
)
THINGS = [
    "a lighthouse",
    "a violin",
    "two sailors",
    "the tides",
    "old maps",
    "a compiler",
    "seven clocks",
    "rye bread",
    "a robot",
    "winter",
]


class NotCalibrated(LadingError):
    """An agent cannot be calibrated here, or a table would say nothing."""

    code = "not_calibrated"
    hint = "Calibrate an agent that chats, on an engine that shows its states."


class Plan(msgspec.Struct, frozen=True):
    """`exact`: judged as a class that promises equal numbers."""

    jobs: int
    tokens: int
    seed: int
    exact: bool = False


class Pair(msgspec.Struct, frozen=True):
    """The runtimes of a host and of an auditor, of one agent."""

    host: Runtime
    auditor: Runtime


Told = Callable[[int], None]


def pair(manifest: Manifest, host: str, auditor: str) -> Pair:
    """By the names of numeric classes, "" for the first that the agent has. Raises NotCalibrated."""
    if "chat" not in manifest.operations:
        raise NotCalibrated(f"{manifest.name!r} does not chat; vectors and calls have the limit of their class.")
    by_class = {one.numeric: one for one in reversed(manifest.runtimes)}
    first = manifest.runtimes[0].numeric
    for name in (host, auditor):
        if name and name not in by_class:
            known = ", ".join(sorted(by_class))
            raise NotCalibrated(f"{manifest.name!r} has no runtime of the class {name!r}.", hint=f"It has: {known}.")
    chosen = host or first
    return Pair(by_class[chosen], by_class[auditor or chosen])


async def calibrate(
    store: BlobStore, agent: AgentId, classes: Pair, plan: Plan, told: Told = lambda done: None
) -> tuple[Measured, tuple[str, str]]:
    """What was measured, and the words of both engines. Raises NotCalibrated, EngineError, BadManifest, NoPackage."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="lading-calibrate-")))
        manifest = await asyncio.to_thread(store.materialise, agent, folder / "agent")
        means = await asyncio.to_thread(means_here)
        hosts = []
        for threads in range(1, MOST_THREADS + 1):
            limits = Limits(slots=SLOTS, threads=threads, device=True)
            hosts.append(await stack.enter_async_context(_opened(manifest, classes.host, folder, limits, means)))
        auditor, ready = await stack.enter_async_context(
            _opened(manifest, classes.auditor, folder, Limits(slots=SLOTS, device=True), means)
        )
        shown = [one async for one in _every([host for host, _ in hosts], auditor, plan, told)]
    return measured(shown), (_words(hosts[0][1]), _words(ready))


@asynccontextmanager
async def _opened(
    manifest: Manifest, runtime: Runtime, folder: Path, limits: Limits, means: Means
) -> AsyncIterator[tuple[Engine, Ready]]:
    scratch = folder / "engines"
    scratch.mkdir(exist_ok=True)
    engine = open_engine(engine_spec(manifest, runtime, folder / "agent", limits), scratch, means)
    ready = await engine.start()
    try:
        yield engine, ready
    finally:
        await engine.stop()


def _words(ready: Ready) -> str:
    return f"{ready.engine} {ready.version}"


async def _every(hosts: Sequence[Engine], auditor: Engine, plan: Plan, told: Told) -> AsyncIterator[Shown]:
    """SLOTS jobs at once, each on the next host."""
    for at in range(0, plan.jobs, SLOTS):
        numbers = range(at, min(at + SLOTS, plan.jobs))
        host = hosts[at // SLOTS % len(hosts)]
        for one in await asyncio.gather(*(_job(host, auditor, plan, number) for number in numbers)):
            yield one
        told(numbers[-1] + 1)


async def _job(host: Engine, auditor: Engine, plan: Plan, number: int) -> Shown:
    """Every other job is resumed in the middle, as after another host's death."""
    request = question(plan, number)
    job = hashlib.sha256(b"lading/calibrate/1" + request.sampler.seed).digest()
    ids, sketch = await _generate(host, Generate(f"calibrate:{number}", request, job=job))
    if number % 2 and len(ids) > 1:
        begun = ids[: len(ids) // 2]
        again = Generate(f"calibrate:{number}:again", request, tuple(begun), job=job)
        more, sketch = await _generate(host, again)
        ids = [*begun, *more]
    scored = await auditor.score(Score(f"calibrate:{number}", request, tuple(ids), job=job, exact=plan.exact))
    if isinstance(scored, Failed):
        raise EngineError(scored.code, scored.message, hint=scored.hint)
    if not sketch or len(sketch) != len(scored.sketch):
        raise NotCalibrated("An engine of this agent does not show its model's states, so that nothing is compared.")
    found = errors(scored.sketch, sketch)
    before = len(found) - len(ids)
    return Shown(scored.margins, chunk_means(found[before:]), tuple(found[:before]))


def question(plan: Plan, number: int) -> ChatRequest:
    """The same for the same plan, everywhere."""
    seed = hashlib.sha256(f"lading/calibrate/{plan.seed}/{number}".encode()).digest()
    ask, a, b = ASKS[number % len(ASKS)], THINGS[seed[0] % len(THINGS)], THINGS[seed[1] % len(THINGS)]
    temperature, top_p, top_k = SAMPLINGS[number % len(SAMPLINGS)]
    sampler = Sampler(seed, temperature, top_p, top_k)
    return ChatRequest((Message("user", ask.format(a=a, b=b)),), plan.tokens, sampler)


async def _generate(engine: Engine, order: Generate) -> tuple[list[int], bytes]:
    """The new output tokens, and the sketch of all positions that were passed."""
    ids, parts = list[int](), list[bytes]()
    async with aclosing(engine.generate(order)) as events:  # type: ignore[type-var]
        async for event in events:
            match event:
                case Failed():
                    raise EngineError(event.code, event.message, hint=event.hint)
                case Started():
                    pass
                case Traced():
                    parts.append(event.sketch)
                case Run():
                    ids += event.ids
                    parts.append(event.sketch)
                case Finished():
                    break
    return ids, b"".join(parts)
