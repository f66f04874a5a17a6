"""An agent tried out on this machine, in the very sandbox that a node would run it in: asked, tested, measured.

No network and no chain; what an agent does here is what a host will see.
"""

import asyncio
import base64
import itertools
import tempfile
import time
import unicodedata
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import msgspec

from lading.blobs import BlobStore
from lading_node.engines.errors import EngineError
from lading_node.engines.factory import Means, lacking, open_engine
from lading_node.engines.port import (
    Embed,
    Embedded,
    Engine,
    Failed,
    Finished,
    Generate,
    Ready,
    Run,
    Score,
    Scored,
    Started,
)
from lading_node.engines.spec import Limits, engine_spec
from lading_node.means_here import means_here
from lading_node.packages import choose_runtime
from lading_node.vectors import near_trouble, request_of, text_trouble
from lading_protocol.audit import TOLERANCES
from lading_protocol.ids import AgentId
from lading_protocol.manifest import Manifest
from lading_protocol.messages import EmbedRequest, Request, Streamed
from lading_protocol.parts import Runtime, Vector
from lading_protocol.transcript import sha256

# What a recorded embedding may differ by on another machine, in parts per million of its largest number.
RECORDED_TOLERANCE = 1000
MOST_OUTPUT = 60_000
_SMALL_MARGIN = 0.02
Show = Callable[[str], None]


class Answer(msgspec.Struct, frozen=True):
    """Times are seconds; `first` is when the first token came. An embedding has rows and no text."""

    text: str
    ids: tuple[int, ...]
    prompt_tokens: int
    finish: str
    seconds: float
    first: float
    rows: Embedded | None = None


class Finding(msgspec.Struct, frozen=True):
    """What a vector showed. `trouble` is "" when all holds; a part is "yes", "no", or "-" where it does not apply."""

    number: int
    operation: str
    expected: str
    again: str
    resumed: str
    scored: str
    tokens: int
    seconds: float
    trouble: str = ""


class Trial:
    """A started engine with one agent."""

    def __init__(self, agent: AgentId, manifest: Manifest, runtime: Runtime, engine: Engine, ready: Ready) -> None:
        self.agent = agent
        self.manifest = manifest
        self.runtime = runtime
        self.engine = engine
        self.ready = ready
        self._numbers = itertools.count(1)

    @property
    def repeats(self) -> bool:
        """Whether the publisher, or a published tolerance, says that a second run gives the same."""
        return self.runtime.determinism != "none" or self.runtime.numeric in TOLERANCES

    async def ask(self, request: Request, show: Show = lambda text: None, emitted: Sequence[int] = ()) -> Answer:
        """Raises EngineError."""
        begun = time.monotonic()
        if isinstance(request, EmbedRequest):
            rows = await self.engine.embed(Embed(self._id(), request))
            if isinstance(rows, Failed):
                raise _error(rows)
            took = time.monotonic() - begun
            return Answer("", (), sum(rows.tokens), "stop", took, took, rows)
        return await self._generate(Generate(self._id(), request, tuple(emitted)), begun, show)

    async def _generate(self, order: Generate, begun: float, show: Show) -> Answer:
        ids: list[int] = []
        text: list[str] = []
        prompt, first, finish = 0, 0.0, ""
        async with aclosing(self.engine.generate(order)) as events:  # type: ignore[type-var]
            async for event in events:
                match event:
                    case Failed():
                        raise _error(event)
                    case Started(prompt_tokens=prompt):
                        pass
                    case Run():
                        first = first or time.monotonic() - begun
                        ids += event.ids
                        text.append(event.text)
                        show(event.text)
                    case Finished(finish=finish):
                        pass
        return Answer("".join(text), tuple(ids), prompt, finish, time.monotonic() - begun, first)

    async def score(self, request: Streamed, ids: Sequence[int]) -> Scored:
        """Raises EngineError."""
        scored = await self.engine.score(Score(self._id(), request, tuple(ids)))
        if isinstance(scored, Failed):
            raise _error(scored)
        return scored

    def _id(self) -> str:
        return f"trial:{next(self._numbers)}"


@asynccontextmanager
async def opened(
    store: BlobStore, agent: AgentId, limits: Limits | None = None, means: Means | None = None
) -> AsyncIterator[Trial]:
    """The agent, loaded and ready. `means` None: what this machine has.

    Raises BadManifest, BadPackage, NoPackage, EngineError.
    """
    with tempfile.TemporaryDirectory(prefix="lading-trial-") as folder:
        place = Path(folder) / "agent"
        manifest = await asyncio.to_thread(store.materialise, agent, place)
        have = means if means is not None else await asyncio.to_thread(means_here)
        runtime = choose_runtime(manifest, lambda runtime: lacking(runtime, have))
        spec = engine_spec(manifest, runtime, place, limits or Limits(slots=1))
        scratch = Path(folder) / "engines"
        scratch.mkdir()
        engine = open_engine(spec, scratch, have)
        try:
            yield Trial(agent, manifest, runtime, engine, await engine.start())
        finally:
            await engine.stop()


async def check(store: BlobStore, agent: AgentId, told: Callable[[Finding], None] = lambda one: None) -> list[Finding]:
    """Run every vector of a package that is in the store. Raises what `opened` raises."""
    async with opened(store, agent) as trial:
        return await examine(trial, trial.manifest.vectors, told)


async def examine(trial: Trial, vectors: Sequence[Vector], told: Callable[[Finding], None]) -> list[Finding]:
    findings = []
    for number, vector in enumerate(vectors, 1):
        findings.append(await _examine(trial, number, vector))
        told(findings[-1])
    return findings


async def expectation(trial: Trial, vector: Vector) -> Vector:
    """The vector with what the agent answers now as what is expected. Raises EngineError."""
    answer = await trial.ask(request_of(vector.operation, vector.input, vector.max_tokens, vector.seed))
    blank = msgspec.structs.replace(vector, output=None, digest=None, near=None)
    if answer.rows is not None:
        near = base64.b64encode(b"".join(answer.rows.vectors)).decode()
        return msgspec.structs.replace(blank, near=near, tolerance=vector.tolerance or RECORDED_TOLERANCE)
    if len(answer.text) > MOST_OUTPUT or not _plain(answer.text):
        return msgspec.structs.replace(blank, digest="0x" + sha256(answer.text.encode()).hex())
    return msgspec.structs.replace(blank, output=answer.text)


# --- inside ---


async def _examine(trial: Trial, number: int, vector: Vector) -> Finding:
    request = request_of(vector.operation, vector.input, vector.max_tokens, vector.seed)
    parts = dict.fromkeys(("expected", "again", "resumed", "scored"), "-")
    troubles: list[str] = []

    def note(part: str, trouble: str) -> None:
        parts[part] = "no" if trouble else "yes"
        if trouble and (part == "expected" or trial.repeats):
            troubles.append(trouble)

    try:
        answer = await trial.ask(request)
    except EngineError as error:
        return Finding(number, vector.operation, "no", "-", "-", "-", 0, 0.0, error.message)
    rows = answer.rows
    note("expected", text_trouble(vector, answer.text) if rows is None else near_trouble(vector, rows))
    again = await trial.ask(request)
    same = again.ids == answer.ids if rows is None else again.rows is not None and again.rows.vectors == rows.vectors
    note("again", "" if same else "a second run gives something else")
    if not isinstance(request, EmbedRequest) and answer.ids:
        await _replay(trial, request, answer, note)
    tokens = len(answer.ids) or answer.prompt_tokens
    return Finding(
        number, vector.operation, **parts, tokens=tokens, seconds=answer.seconds, trouble="; ".join(troubles)
    )


async def _replay(trial: Trial, request: Streamed, answer: Answer, note: Callable[[str, str], None]) -> None:
    """Resumed in the middle, as after a host's death; scored, as by an auditor. An engine may be able to do neither."""
    middle = len(answer.ids) // 2
    try:
        rest = await trial.ask(request, emitted=answer.ids[:middle])
        note("resumed", "" if rest.ids == answer.ids[middle:] else f"resumed at token {middle} it goes on otherwise")
    except EngineError as error:
        if trial.repeats:
            note("resumed", f"it cannot be resumed: {error.message}")
    try:
        scored = await trial.score(request, answer.ids)
        limit = TOLERANCES[trial.runtime.numeric].margin if trial.runtime.numeric in TOLERANCES else _SMALL_MARGIN
        worst = max(scored.margins, default=0.0)
        note("scored", "" if worst <= limit else f"an auditor finds a margin of {worst:g}, {limit:g} is allowed")
    except EngineError as error:
        if trial.repeats:
            note("scored", f"it cannot be scored: {error.message}")


def _plain(text: str) -> bool:
    """Whether a manifest may hold it as it is."""
    return unicodedata.normalize("NFC", text) == text and all(c.isprintable() or c in "\n\r\t" for c in text)


def _error(failed: Failed) -> EngineError:
    return EngineError(failed.code, failed.message, hint=failed.hint)
