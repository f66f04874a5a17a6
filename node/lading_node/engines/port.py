"""The engine port: what a node or an auditor asks of a loaded agent, and the values that come back.

One engine is one loaded agent. Expected refusals and failures are values (`Failed`); only `start` raises. Nothing here
knows money, peers or how an engine runs.
"""

from collections.abc import AsyncIterator
from typing import Annotated, Literal, Protocol

import msgspec
from msgspec import Meta

from lading_protocol.messages import Chance, EmbedRequest, Streamed
from lading_protocol.parts import Capabilities, LlmShape, Operation

Kind = Literal["memory", "llm-onnx", "torch", "onnx", "wasm-core", "wasm-component", "oci", "openai-http", "ray"]
Tier = Literal["", "W", "P", "C", "G"]
Finish = Literal["stop", "length", "cancelled"]

FailureCode = Literal[
    "invalid_request",  # the consumer's request cannot be served by anyone (empty, unknown role, bad emitted id)
    "context_exceeded",  # prompt + max_tokens do not fit the agent's context
    "busy",  # all slots of this engine are taken
    "invalid_package",  # a file of the agent is missing, altered or malformed
    "agent_error",  # the agent's own template or model misbehaves
    "timeout",  # a deadline passed; the engine was killed
    "resource_exhausted",  # out of memory within the engine's limit
    "engine_error",  # the engine failed; the host's fault
    "engine_died",  # the engine's process ended (crash, kill, stop)
]
BLAMES_AGENT = frozenset({"invalid_package", "agent_error"})
BLAMES_CALLER = frozenset({"invalid_request", "context_exceeded"})


class _Value(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class AgentFile(_Value, frozen=True):
    """A file of the agent on this machine. The engine runs the bytes it hashed: those that give `digest`."""

    role: str
    path: str
    digest: Annotated[bytes, Meta(min_length=32, max_length=32)]


class HostModel(_Value, frozen=True):
    """A model that the agent reaches by host import, under `alias`; `files` as an agent of its own would have them."""

    alias: str
    kind: Kind
    files: tuple[AgentFile, ...]
    llm: LlmShape | None = None


class EngineSpec(_Value, frozen=True):
    """What to load, and within which limits.

    `context` is in tokens, prompt and output together. `memory` limits the address space of the process in bytes, 0 is
    no limit. `seed` names the weights of the `memory` engine: another seed is another model. `cache` is a folder for
    compiled code that only this machine's own compile step writes ("": none). `tier` is the isolation asked for, ""
    for the best that passed this machine's self-test. `device` says that a GPU may be used, `card` which one (its uuid
    or index as the driver gives it, "" any). `endpoint` is the operator's name for the server that runs it
    (factory.Means), "" for an agent that runs here. `repeats`: the publisher promises equal answers to equal requests.
    `numeric` is the class of arithmetic that the host's offer names ("" none): an engine of another does not load.
    """

    kind: Kind
    files: tuple[AgentFile, ...] = ()
    llm: LlmShape | None = None
    context: int = 1024
    slots: int = 4
    threads: int = 1
    memory: int = 0
    seed: str = "toy"
    precision: str = "f32"
    operations: tuple[Operation, ...] = ()
    capabilities: Capabilities = Capabilities()
    models: tuple[HostModel, ...] = ()
    cache: str = ""
    tier: Tier = ""
    device: bool = False
    card: str = ""
    endpoint: str = ""
    repeats: bool = False
    numeric: str = ""


class Generate(_Value, frozen=True, tag="generate"):
    """One attempt at a chat or a call. `id` is unique among those running.

    `emitted` are the output tokens of earlier attempts. The engine runs at most `ahead` tokens ahead of what the caller
    took from the iterator; 0 is no limit. With a `job`, a model that shows its states gives their sketch for that job.
    """

    id: str
    request: Streamed
    emitted: tuple[int, ...] = ()
    ahead: int = 0
    job: bytes = b""


class Embed(_Value, frozen=True, tag="embed"):
    id: str
    request: EmbedRequest


class Score(_Value, frozen=True, tag="score"):
    """Check the output tokens `emitted` of a chat or a call, from absolute index `first` on; `job` as in Generate.

    `exact`: of a host whose numeric class promises equal numbers, so that what top-k, top-p or min-p cuts off is cut.
    """

    id: str
    request: Streamed
    emitted: tuple[int, ...]
    first: int = 0
    job: bytes = b""
    exact: bool = False


class Started(_Value, frozen=True, tag="started"):
    """The prompt is rendered and fits. `prompt_hash` is transcript.prompt_hash of its ids."""

    id: str
    prompt_tokens: int
    prompt_hash: bytes


class Traced(_Value, frozen=True, tag="traced"):
    """A part of the sketch (core/sketch) of all positions before the one that gives the first output token.

    Comes in whole chunks but for the last, before the first Run; at least once where Runs have sketches.
    """

    id: str
    sketch: bytes


class Run(_Value, frozen=True, tag="run", omit_defaults=True):
    """Output tokens from absolute index `first` on, and the text that they release; text may lag behind the ids.

    An end-of-sequence token is a token like any other here, with no text. `sketch` has SKETCH_BYTES a token, of the
    state that each was chosen from, or is empty. `chances` has one entry a token where the request asks for them.
    """

    id: str
    first: int
    ids: tuple[int, ...]
    text: str
    sketch: bytes = b""
    chances: tuple[Chance, ...] = ()


class Finished(_Value, frozen=True, tag="finished"):
    """The last event. `output_tokens` counts all ids of the job so far, those of earlier attempts included."""

    id: str
    finish: Finish
    output_tokens: int


class Failed(_Value, frozen=True, tag="failed"):
    """The last event: it did not work, why, and what to do."""

    id: str
    code: FailureCode
    message: str
    hint: str = ""


class Embedded(_Value, frozen=True, tag="embedded"):
    """`vectors` are rows of little-endian float32, one an input, `width` numbers each; `tokens` counts each input's."""

    id: str
    width: int
    vectors: tuple[bytes, ...]
    tokens: tuple[int, ...]


class Scored(_Value, frozen=True, tag="scored"):
    """`margins[i]` belongs to output index `first + i`, in logits; 0 is the sampler's own choice, and for a call
    it is 0 where a second run gives the same and infinite where it does not.

    `ended` is the number of tokens after which the request's stop rules end the answer, 0 when they do not end it
    within the scored tokens; `finish` is the reason then ("" when not ended). `sketch` is the re-run's own, for all
    positions from the prompt's first to that of the last scored token but one; empty for a model without states.
    """

    id: str
    prompt_tokens: int
    prompt_hash: bytes
    margins: tuple[float, ...]
    finish: Literal["", "stop", "length"]
    ended: int
    sketch: bytes = b""


class Ready(_Value, frozen=True, tag="ready"):
    """What was loaded, and how its process is confined.

    `confinement` names the limits that hold, such as "network", "files", "syscalls" (see confine.py). `tier` is the
    tier of isolation that they make, "" for none. `width` is the size of an embedding, 0 for a language model.
    """

    engine: str
    version: str
    confinement: tuple[str, ...]
    pid: int
    load_ms: int
    vocab: int = 0
    width: int = 0
    tier: Tier = ""


class Health(_Value, frozen=True):
    """Measured by the host, not told by the engine. `memory` is the resident set in bytes.

    `slots` are the requests that it takes at once now (0: as many as its spec says), and `device` is the class of what
    it runs on, where it may be elsewhere than here ("": here).
    """

    alive: bool
    running: int
    cpu_s: float
    memory: int
    prompt_tokens: int
    output_tokens: int
    slots: int = 0
    device: str = ""


Event = Started | Traced | Run | Finished | Failed


class Engine(Protocol):
    """A loaded agent. Every method may be called from one event loop only."""

    async def start(self) -> Ready:
        """Load the agent. Raises EngineError (with a FailureCode) when it cannot be had within the load deadline."""
        ...

    def generate(self, order: Generate) -> AsyncIterator[Event]:
        """Started, perhaps Traced, then Runs, then one Finished or Failed. Closing the iterator early cancels."""
        ...

    async def embed(self, order: Embed) -> Embedded | Failed: ...

    async def score(self, order: Score) -> Scored | Failed: ...

    def cancel(self, id: str) -> None:
        """End a generation at the next token edge; its iterator then yields Finished("cancelled"). Unknown ids pass."""
        ...

    def health(self) -> Health: ...

    async def stop(self, grace: float = 0.5) -> None:
        """End it: asked first, killed after `grace` seconds. Running requests get Failed("engine_died")."""
        ...
