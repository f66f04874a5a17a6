"""The agent manifest: canonical JSON over single-file blobs. Its sha256 is the agent's id.

Canonical means: UTF-8, sorted keys, no spaces, no floats, no duplicate keys, NFC text, at most 1 MiB; reading and
writing give the same bytes. Nothing here touches a file; there is nothing to extract and nothing that runs.
"""

import json
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from lading_protocol.errors import BadManifest, one_line
from lading_protocol.ids import Address, AgentId, Digest, address
from lading_protocol.nesting import deeper
from lading_protocol.parts import (
    Attestation,
    Capabilities,
    File,
    Hex20,
    Hex32,
    Model,
    Name,
    Operation,
    Part,
    Resources,
    Revenue,
    Runtime,
    Step,
    Vector,
    Word,
)
from lading_protocol.rules import check
from lading_protocol.transcript import sha256

SCHEMA = "lading.agent/1"
MAX_MANIFEST = 1 << 20
MAX_DEPTH = 16


class Manifest(Part, frozen=True):
    """An agent. `parent` is the agent that it derives from; which terms are agreed for it stands on the chain.

    `context` is in tokens, prompt and output together; `width` that of an embedding.
    """

    schema: str
    name: Name
    version: Annotated[str, Meta(min_length=1, max_length=64)]
    publisher: Hex20
    summary: Annotated[str, Meta(max_length=500)]
    licence: Word
    api: Annotated[tuple[Operation, ...], Meta(min_length=1, max_length=8)]
    context: Annotated[int, Meta(ge=1, le=2**24)]
    runtimes: Annotated[tuple[Runtime, ...], Meta(min_length=1, max_length=8)]
    files: Annotated[tuple[File, ...], Meta(min_length=1, max_length=256)]
    parent: Hex32 | None = None
    supersedes: Hex32 | None = None
    width: Annotated[int, Meta(ge=1, le=2**16)] | None = None
    models: Annotated[tuple[Model, ...], Meta(max_length=8)] = ()
    vectors: Annotated[tuple[Vector, ...], Meta(max_length=32)] = ()
    capabilities: Capabilities = Capabilities()
    resources: Resources = Resources()
    revenue: Revenue = Revenue()
    workflow: Annotated[tuple[Step, ...], Meta(max_length=64)] = ()
    provenance: Annotated[tuple[Attestation, ...], Meta(max_length=16)] = ()

    @property
    def publisher_address(self) -> Address:
        return address(self.publisher)

    @property
    def operations(self) -> tuple[str, ...]:
        return tuple(operation.name for operation in self.api)

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.size for file in self.files)

    def file(self, path: str) -> File:
        for file in self.files:
            if file.path == path:
                return file
        raise BadManifest(f"The package has no file {path[:80]!r}.")

    def model(self, alias: str) -> Model:
        for model in self.models:
            if model.alias == alias:
                return model
        raise BadManifest(f"The package has no model {alias!r}.")


def dump(manifest: Manifest) -> bytes:
    """The canonical bytes. Raises BadManifest when a rule is broken."""
    data = _canonical(msgspec.to_builtins(manifest))
    load(data)
    return data


def load(data: bytes) -> Manifest:
    """Read a manifest from anywhere. Raises BadManifest; what it returns obeys every rule of this module."""
    if len(data) > MAX_MANIFEST:
        raise BadManifest(f"The manifest has {len(data)} bytes, over the limit of {MAX_MANIFEST}.")
    if deeper(data, MAX_DEPTH):
        raise BadManifest(f"The manifest is nested deeper than {MAX_DEPTH} levels.")
    try:
        tree = json.loads(data, object_pairs_hook=_no_duplicates, parse_float=_no_float, parse_constant=_no_float)
        canonical = _canonical(tree)
        manifest = msgspec.convert(tree, Manifest)
    except BadManifest:
        raise
    except (ValueError, msgspec.ValidationError) as error:
        raise BadManifest(f"The manifest does not read: {one_line(error)}.") from error
    # Written again from what was understood: a field left out, or said twice in two ways, shows here.
    if canonical != data or _canonical(msgspec.to_builtins(manifest)) != data:
        raise BadManifest("The manifest is not in canonical form.", hint="Write it with `lading agent publish`.")
    check(manifest, tree)
    return manifest


def agent_id(data: bytes) -> AgentId:
    """The agent's id from its canonical bytes."""
    return AgentId(sha256(data))


def model_id(manifest: Manifest, model: Model) -> Digest:
    """The model's own id: the same weights, tokenizer, template and precision have the same one in every package."""
    files = sorted([file.role, file.digest] for file in (manifest.file(path) for path in model.files))
    identity = {"architecture": model.architecture, "files": files, "precision": model.precision}
    return sha256(_canonical(identity))


def _canonical(tree: Any) -> bytes:
    return json.dumps(tree, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise BadManifest("A key stands twice in the manifest.")
    return found


def _no_float(text: str) -> None:
    raise BadManifest(f"The manifest holds the number {text[:40]}; only whole numbers are allowed.")
