"""The parts of an agent's manifest, each a frozen struct that refuses unknown fields. What they must fulfil together is
said in rules.py.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from lading_protocol.ids import Digest, digest, to_hex
from lading_protocol.transcript import sha256

CHUNK_SIZE = 1 << 20
INLINE_CHUNKS = 256

# They end with \Z: a $ would let a line break follow.
Hex32 = Annotated[str, Meta(pattern=r"^0x[0-9a-f]{64}\Z")]
Hex20 = Annotated[str, Meta(pattern=r"^0x[0-9a-f]{40}\Z")]
Name = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,62}\Z")]
Word = Annotated[str, Meta(min_length=1, max_length=64)]
Path = Annotated[str, Meta(max_length=512)]
Bytes = Annotated[int, Meta(ge=0, le=2**53)]
Bps = Annotated[int, Meta(ge=0, le=10_000)]
WeiText = Annotated[str, Meta(pattern=r"^(0|[1-9][0-9]{0,28})\Z")]

Determinism = Literal[
    "exact",  # the same bytes on the same engine and architecture
    "greedy",  # the same tokens at temperature 0, on any engine of this precision
    "near",  # within a published tolerance
    "none",  # nobody can tell by running it again
]


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What every struct of a manifest is."""


class File(Part, frozen=True):
    """One blob. `chunks` are the sha256 of each CHUNK_SIZE bytes, so that a download is checked as it streams.

    A file of more than INLINE_CHUNKS lists none here: `index` is the digest of a blob that holds them, 32 bytes each.
    A file of the role "delta" makes the file `target` out of a held file `base`; both are digests.
    """

    path: Path
    role: str
    digest: Hex32
    size: Bytes
    chunks: Annotated[tuple[Hex32, ...], Meta(max_length=INLINE_CHUNKS)] = ()
    index: Hex32 | None = None
    base: Hex32 | None = None
    target: Hex32 | None = None

    @property
    def chunk_count(self) -> int:
        return -(-self.size // CHUNK_SIZE)


class LlmShape(Part, frozen=True):
    """What an engine must know of a decoder-only model to write its own configuration."""

    layers: Annotated[int, Meta(ge=1, le=512)]
    heads: Annotated[int, Meta(ge=1, le=1024)]
    kv_heads: Annotated[int, Meta(ge=1, le=1024)]
    head_size: Annotated[int, Meta(ge=1, le=1024)]
    hidden: Annotated[int, Meta(ge=1, le=65536)]
    vocab: Annotated[int, Meta(ge=2, le=2**22)]
    eos: Annotated[tuple[Annotated[int, Meta(ge=0, lt=2**22)], ...], Meta(min_length=1, max_length=16)]
    bos: Annotated[int, Meta(ge=0, lt=2**22)] | None = None
    pad: Annotated[int, Meta(ge=0, lt=2**22)] | None = None


class Base(Part, frozen=True):
    """A model that this one was made from, by its model id."""

    model: Hex32
    licence: Word


class Model(Part, frozen=True):
    """A model inside the package: which files make it, and at which precision. manifest.model_id names it."""

    alias: Name
    architecture: Word
    precision: Word
    files: Annotated[tuple[Path, ...], Meta(min_length=1, max_length=256)]
    bases: Annotated[tuple[Base, ...], Meta(max_length=16)] = ()


class Runtime(Part, frozen=True):
    """One way to run the agent. `entry` is the path of the file that the engine loads.

    `numeric` names the arithmetic that spot checks compare with. `model` is the alias of the model it runs, `abi` the
    version of what the engine and the agent say to each other, `platform` such as "linux/amd64", "" for any.
    """

    engine: Word
    entry: Path
    precision: Word
    numeric: Word
    llm: LlmShape | None = None
    model: Name | None = None
    determinism: Determinism = "none"
    abi: Annotated[int, Meta(ge=1, le=1000)] = 1
    platform: Annotated[str, Meta(max_length=64)] = ""


class Operation(Part, frozen=True):
    """What the agent does. "chat" and "embed" have the protocol's own requests; any other name is a call.

    `input` and `output` are JSON Schemas; an empty one allows anything. `max_input` is in bytes of JSON, 0 for the
    protocol's limit. `stream` tells that the answer comes in parts that are worth showing.
    """

    name: Name
    input: dict[str, Any] = {}
    output: dict[str, Any] = {}
    stream: bool = False
    max_input: Bytes = 0


class Vector(Part, frozen=True):
    """A test vector: run when the agent is taken in, and by anyone who doubts it.

    One of three is expected: `output`, the exact text; `digest`, the sha256 of it; or `near`, base64 of float32
    numbers, each within `tolerance` parts per million of the largest.
    """

    operation: Name
    input: Any
    max_tokens: Annotated[int, Meta(ge=1, le=2**17)] = 256
    seed: Hex32 | None = None
    output: Annotated[str, Meta(max_length=65536)] | None = None
    digest: Hex32 | None = None
    near: Annotated[str, Meta(max_length=65536)] | None = None
    tolerance: Annotated[int, Meta(ge=0, le=1_000_000)] = 0


class Capabilities(Part, frozen=True):
    """What the agent asks for beyond its own files. All of it is denied unless it stands here and the host agrees.

    `models` are aliases that the agent reaches by host import; `state` is in bytes; `agents` may be called.
    """

    models: Annotated[tuple[Name, ...], Meta(max_length=8)] = ()
    egress: Annotated[tuple[Annotated[str, Meta(min_length=1, max_length=253)], ...], Meta(max_length=16)] = ()
    agents: Annotated[tuple[Hex32, ...], Meta(max_length=64)] = ()
    state: Bytes = 0
    clock: bool = False
    randomness: bool = False
    device: bool = False


class Resources(Part, frozen=True):
    """What the publisher says it needs, in bytes and threads: claims. A host goes by file sizes and measurements."""

    memory: Bytes = 0
    vram: Bytes = 0
    disk: Bytes = 0
    threads: Annotated[int, Meta(ge=0, le=4096)] = 0


class Share(Part, frozen=True):
    """A party of the split that the publisher proposes: a role of the chain's tables, in lower case."""

    role: Literal["maker", "oem", "weaver", "curator"]
    payee: Hex20
    bps: Annotated[int, Meta(ge=1, le=9999)]


class Upstream(Part, frozen=True):
    """What is owed to the owner of an ancestor."""

    agent: Hex32
    bps: Bps


class Revenue(Part, frozen=True):
    """How the agent earns: the split that its publisher agrees first, what its descendants owe, what it owes.

    Floors are wei per 1,000 tokens, in decimal digits.
    """

    split: Annotated[tuple[Share, ...], Meta(max_length=16)] = ()
    royalty: Bps = 0
    floor_in: WeiText = "0"
    floor_out: WeiText = "0"
    upstream: Annotated[tuple[Upstream, ...], Meta(max_length=8)] = ()


class Wire(Part, frozen=True):
    """A value that a step takes: the JSON pointer `take` into what `step` gave ("" is the workflow's own input)."""

    step: Annotated[str, Meta(max_length=63)]
    take: Annotated[str, Meta(max_length=256)]
    put: Annotated[str, Meta(max_length=256)]


class Step(Part, frozen=True):
    """A step of a workflow, as data: an agent's operation, fed from earlier steps, at most `times` times."""

    name: Name
    agent: Hex32
    operation: Name
    wires: Annotated[tuple[Wire, ...], Meta(max_length=32)]
    max_tokens: Annotated[int, Meta(ge=1, le=2**17)]
    times: Annotated[int, Meta(ge=1, le=1000)] = 1


class Attestation(Part, frozen=True):
    """Where the package comes from: a statement kept elsewhere, by digest."""

    kind: Word
    digest: Hex32


def describe_file(path: str, role: str, data: bytes) -> File:
    """The entry of a file given whole; large files go through `file_entry` with hashes made while streaming."""
    chunks = [sha256(data[at : at + CHUNK_SIZE]) for at in range(0, len(data), CHUNK_SIZE)]
    return file_entry(path, role, sha256(data), len(data), chunks)


def file_entry(path: str, role: str, whole: Digest, size: int, chunks: list[Digest]) -> File:
    """The entry of a file from its hashes. Where it needs an index, that blob is `index_blob(chunks)`."""
    if len(chunks) > INLINE_CHUNKS:
        return File(path, role, to_hex(whole), size, (), to_hex(sha256(index_blob(chunks))))
    return File(path, role, to_hex(whole), size, tuple(map(to_hex, chunks)))


def index_blob(chunks: list[Digest]) -> bytes:
    return b"".join(chunks)


def chunk_digests(file: File, index: bytes = b"") -> list[Digest]:
    """The digests of a file's chunks; `index` is the blob that the file names, already checked against its digest."""
    if file.index is None:
        return [digest(chunk) for chunk in file.chunks]
    return [Digest(index[at : at + 32]) for at in range(0, len(index), 32)]
