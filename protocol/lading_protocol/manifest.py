"""The agent manifest: canonical JSON over single-file blobs. Its sha256 is the agent's id.

Canonical means: UTF-8, sorted keys, no spaces, no floats, no duplicate keys, NFC text, at most 1 MiB; reading and
writing give the same bytes. Nothing here touches a file; there is nothing to extract and nothing that runs.
"""

import json
import re
import unicodedata
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from lading_protocol.errors import BadManifest
from lading_protocol.ids import Address, AgentId, Digest, address, digest, to_hex
from lading_protocol.transcript import sha256

SCHEMA = "lading.agent/1"
MAX_MANIFEST = 1 << 20
MAX_DEPTH = 16
CHUNK_SIZE = 1 << 20
ROLES = frozenset({"model", "tokenizer", "chat_template", "weights", "module", "readme", "licence"})
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")

Hex32 = Annotated[str, Meta(pattern="^0x[0-9a-f]{64}$")]
Hex20 = Annotated[str, Meta(pattern="^0x[0-9a-f]{40}$")]
Name = Annotated[str, Meta(pattern="^[a-z0-9][a-z0-9-]{0,62}$")]
Word = Annotated[str, Meta(min_length=1, max_length=64)]


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class File(_Part, frozen=True):
    """One blob. `chunks` are the sha256 of each CHUNK_SIZE bytes, so that a download is checked as it streams."""

    path: Annotated[str, Meta(max_length=512)]
    role: str
    digest: Hex32
    size: Annotated[int, Meta(ge=0, le=2**53)]
    chunks: tuple[Hex32, ...]


class LlmShape(_Part, frozen=True):
    """What an engine must know of a decoder-only model to write its own configuration."""

    layers: Annotated[int, Meta(ge=1, le=512)]
    heads: Annotated[int, Meta(ge=1, le=1024)]
    kv_heads: Annotated[int, Meta(ge=1, le=1024)]
    head_size: Annotated[int, Meta(ge=1, le=1024)]
    hidden: Annotated[int, Meta(ge=1, le=65536)]
    vocab: Annotated[int, Meta(ge=2, le=2**22)]
    eos: Annotated[tuple[Annotated[int, Meta(ge=0)], ...], Meta(min_length=1, max_length=16)]
    bos: int | None = None
    pad: int | None = None


class Runtime(_Part, frozen=True):
    """One way to run the agent. `entry` is the path of the file that the engine loads."""

    engine: Word
    entry: str
    precision: Word
    numeric: Word
    llm: LlmShape | None = None


class Manifest(_Part, frozen=True):
    """An agent. `parent` is the agent that it derives from; revenue terms live on the chain, under this digest."""

    schema: str
    name: Name
    version: Annotated[str, Meta(min_length=1, max_length=64)]
    publisher: Hex20
    summary: Annotated[str, Meta(max_length=500)]
    licence: Word
    operations: Annotated[tuple[str, ...], Meta(min_length=1, max_length=4)]
    context: Annotated[int, Meta(ge=1, le=2**24)]
    runtimes: Annotated[tuple[Runtime, ...], Meta(min_length=1, max_length=8)]
    files: Annotated[tuple[File, ...], Meta(min_length=1, max_length=256)]
    parent: Hex32 | None = None
    width: int | None = None

    @property
    def publisher_address(self) -> Address:
        return address(self.publisher)

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.size for file in self.files)

    def file(self, path: str) -> File:
        for file in self.files:
            if file.path == path:
                return file
        raise BadManifest(f"The package has no file {path!r}.")


def dump(manifest: Manifest) -> bytes:
    """The canonical bytes. Raises BadManifest when a rule is broken."""
    data = _canonical(msgspec.to_builtins(manifest))
    load(data)
    return data


def load(data: bytes) -> Manifest:
    """Read a manifest from anywhere. Raises BadManifest; what it returns obeys every rule of this module."""
    if len(data) > MAX_MANIFEST:
        raise BadManifest(f"The manifest has {len(data)} bytes, over the limit of {MAX_MANIFEST}.")
    if _depth(data) > MAX_DEPTH:
        raise BadManifest(f"The manifest is nested deeper than {MAX_DEPTH} levels.")
    try:
        tree = json.loads(data, object_pairs_hook=_no_duplicates, parse_float=_no_float, parse_constant=_no_float)
        canonical = _canonical(tree)
        manifest = msgspec.convert(tree, Manifest)
    except BadManifest:
        raise
    except (ValueError, msgspec.ValidationError) as error:
        raise BadManifest(f"The manifest does not read: {error}.") from error
    if canonical != data:
        raise BadManifest("The manifest is not in canonical form.", hint="Write it with `lading agent publish`.")
    _check(manifest)
    return manifest


def agent_id(data: bytes) -> AgentId:
    """The agent's id from its canonical bytes."""
    return AgentId(sha256(data))


def describe_file(path: str, role: str, data: bytes) -> File:
    """The entry of a file given whole; large files go through `File` with hashes made while streaming."""
    chunks = tuple(to_hex(sha256(data[at : at + CHUNK_SIZE])) for at in range(0, len(data), CHUNK_SIZE))
    return File(path, role, to_hex(sha256(data)), len(data), chunks)


def chunk_digests(file: File) -> list[Digest]:
    return [digest(chunk) for chunk in file.chunks]


def _depth(data: bytes) -> int:
    """How deep brackets nest outside strings. Checked before parsing: a parser's own guard can be raised or missing."""
    depth = deepest = 0
    for bracket in re.findall(rb"[\[\]{}]", _STRING.sub(b"", data)):
        depth += 1 if bracket in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _canonical(tree: Any) -> bytes:
    return json.dumps(tree, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise BadManifest("A key stands twice in the manifest.")
    return found


def _no_float(text: str) -> None:
    raise BadManifest(f"The manifest holds the number {text}; only whole numbers are allowed.")


def _check(manifest: Manifest) -> None:
    if manifest.schema != SCHEMA:
        raise BadManifest(f"Unknown schema {manifest.schema!r}; this program reads {SCHEMA!r}.")
    for text in (manifest.summary, manifest.version, manifest.licence):
        if unicodedata.normalize("NFC", text) != text or not text.isprintable():
            raise BadManifest(f"{text[:40]!r} is not printable text in NFC form.")
    if unknown := set(manifest.operations) - {"chat", "embed"}:
        raise BadManifest(f"Unknown operations: {', '.join(sorted(unknown))}.")
    _check_files(manifest.files)
    for runtime in manifest.runtimes:
        manifest.file(runtime.entry)


def _check_files(files: tuple[File, ...]) -> None:
    seen: set[str] = set()
    for file in files:
        segments = file.path.split("/")
        if not all(_SEGMENT.fullmatch(segment) for segment in segments):
            raise BadManifest(f"The path {file.path!r} is not made of plain names.")
        if file.role not in ROLES:
            raise BadManifest(f"{file.path!r} has the unknown role {file.role!r}.")
        if len(file.chunks) != -(-file.size // CHUNK_SIZE):
            raise BadManifest(f"{file.path!r} lists {len(file.chunks)} chunks for {file.size} bytes.")
        if file.path.lower() in seen:
            raise BadManifest(f"{file.path!r} stands twice (case does not tell paths apart).")
        seen.add(file.path.lower())
    for path in seen:
        parts = path.split("/")
        for depth in range(1, len(parts)):
            if "/".join(parts[:depth]) in seen:
                raise BadManifest(f"{path!r} lies below another file.")
