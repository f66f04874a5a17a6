"""What the parts of a manifest must fulfil together. Each rule that is broken is one BadManifest in words.

`check` takes a whole manifest; nothing here reads a file.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from lading_protocol.errors import BadManifest
from lading_protocol.parts import INLINE_CHUNKS, File, Revenue, Step, Vector
from lading_protocol.segments import check_path

if TYPE_CHECKING:
    from lading_protocol.manifest import Manifest

# No shared library and nothing that an interpreter would run by itself; an image is run by a container engine only.
ROLES = frozenset(
    {
        "model",
        "weights",
        "tokenizer",
        "chat_template",
        "adapter",
        "vocabulary",
        "config",
        "module",
        "image",
        "delta",
        "readme",
        "licence",
    }
)
MODEL_ROLES = frozenset({"model", "weights", "tokenizer", "chat_template", "adapter", "vocabulary", "config"})
SCHEMA = "lading.agent/1"
_WHOLE_BPS = 10_000
_SPACES = "\n\r\t"
# They turn the reading direction: a name could read as another.
_TURNING = frozenset(map(chr, [*range(0x202A, 0x202F), *range(0x2066, 0x206A)]))


def check(manifest: "Manifest", tree: Any) -> None:
    """Raises BadManifest. `tree` is the manifest as JSON values."""
    if manifest.schema != SCHEMA:
        raise BadManifest(f"Unknown schema {manifest.schema[:40]!r}; this program reads {SCHEMA!r}.")
    _check_text(tree)
    for text in (manifest.summary, manifest.version, manifest.licence):
        if not text.isprintable():
            raise BadManifest(f"{text[:40]!r} is not printable text.")
    _unique("operation", [operation.name for operation in manifest.api])
    _check_files(manifest.files)
    _check_models(manifest)
    for runtime in manifest.runtimes:
        manifest.file(runtime.entry)
        if runtime.model is not None:
            manifest.model(runtime.model)
        if not (runtime.engine + runtime.numeric + runtime.precision + runtime.platform).isprintable():
            raise BadManifest("A runtime names its engine, precision or platform in unprintable characters.")
    for vector in manifest.vectors:
        _check_vector(vector, manifest.operations)
    _check_revenue(manifest.revenue)
    _check_workflow(manifest.workflow, manifest.capabilities.agents)


def _check_text(tree: Any) -> None:
    for text in _strings(tree):
        if unicodedata.normalize("NFC", text) != text:
            raise BadManifest(f"{text[:40]!r} is not in Unicode's NFC form.")
        if any(c in _TURNING or (unicodedata.category(c) in ("Cc", "Cs") and c not in _SPACES) for c in text):
            raise BadManifest(f"{text[:40]!r} holds control characters.")


def _strings(tree: Any) -> Iterator[str]:
    """Every string of a JSON tree, keys too. Recursion is bounded: the depth was checked before parsing."""
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, dict):
        for key, value in tree.items():
            yield key
            yield from _strings(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _strings(value)


def _check_files(files: tuple[File, ...]) -> None:
    seen: set[str] = set()
    for file in files:
        check_path(file.path)
        if file.role not in ROLES:
            raise BadManifest(f"{file.path!r} has the unknown role {file.role[:40]!r}.")
        _check_chunks(file)
        if (file.role == "delta") != (file.base is not None and file.target is not None):
            raise BadManifest(f"{file.path!r}: a delta, and nothing else, names the file it starts from and makes.")
        if file.path.lower() in seen:
            raise BadManifest(f"{file.path!r} stands twice (case does not tell paths apart).")
        seen.add(file.path.lower())
    for path in seen:
        parts = path.split("/")
        for depth in range(1, len(parts)):
            if "/".join(parts[:depth]) in seen:
                raise BadManifest(f"{path!r} lies below another file.")


def _check_chunks(file: File) -> None:
    if file.chunk_count > INLINE_CHUNKS:
        if file.index is None or file.chunks:
            raise BadManifest(f"{file.path!r} has {file.chunk_count} chunks and must name an index of them.")
    elif file.index is not None or len(file.chunks) != file.chunk_count:
        raise BadManifest(f"{file.path!r} lists {len(file.chunks)} chunks for {file.size} bytes.")


def _check_models(manifest: "Manifest") -> None:
    _unique("model", [model.alias for model in manifest.models])
    for model in manifest.models:
        _unique(f"file of model {model.alias!r}", list(model.files))
        for path in model.files:
            if (role := manifest.file(path).role) not in MODEL_ROLES:
                raise BadManifest(f"The model {model.alias!r} names {path!r}, which has the role {role!r}.")
    for alias in manifest.capabilities.models:
        manifest.model(alias)


def _check_vector(vector: Vector, operations: Sequence[str]) -> None:
    if vector.operation not in operations:
        raise BadManifest(f"A test vector is for {vector.operation!r}, which the agent does not do.")
    if sum(expected is not None for expected in (vector.output, vector.digest, vector.near)) != 1:
        raise BadManifest("A test vector expects exactly one of output, digest and near.")


def _check_revenue(revenue: Revenue) -> None:
    if sum(share.bps for share in revenue.split) >= _WHOLE_BPS:
        raise BadManifest("The split leaves nothing to the host.", hint="Lower the shares.")
    _unique("party of the split", [f"{share.role} {share.payee}" for share in revenue.split])
    _unique("upstream agent", [one.agent for one in revenue.upstream])


def _check_workflow(steps: tuple[Step, ...], allowed: Sequence[str]) -> None:
    """Steps only look back, so there are no circles; and they call only what the capabilities name."""
    before: set[str] = {""}
    for step in steps:
        if step.name in before:
            raise BadManifest(f"The workflow has two steps named {step.name!r}.")
        if step.agent not in allowed:
            raise BadManifest(f"The step {step.name!r} calls an agent that the capabilities do not name.")
        for wire in step.wires:
            if wire.step not in before:
                raise BadManifest(f"The step {step.name!r} takes from {wire.step!r}, which does not come before it.")
            for pointer in (wire.take, wire.put):
                if pointer and not pointer.startswith("/"):
                    raise BadManifest(f"{pointer[:40]!r} in step {step.name!r} is no JSON pointer.")
        before.add(step.name)


def _unique(what: str, names: Sequence[str]) -> None:
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise BadManifest(f"The {what} {twice[:80]!r} stands twice.")
