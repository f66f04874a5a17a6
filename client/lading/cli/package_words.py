"""A package in words: what it does, what runs it, what it asks for, who earns. Shows; decides nothing."""

from collections.abc import Iterator, Sequence
from typing import Any

from lading.cli.output import emit, out, plain
from lading.core.consents import share_words
from lading.project import DECIMALS
from lading_protocol.ids import AgentId, to_hex
from lading_protocol.manifest import Manifest, model_id
from lading_protocol.parts import Operation, Runtime, Vector
from lading_protocol.pricing import format_amount

_CLASSES = {
    "exact": "the same bytes every time",
    "greedy": "the same tokens at temperature 0",
    "near": "the same within a tolerance",
    "none": "not repeatable",
}


def show(agent: AgentId | None, manifest: Manifest) -> None:
    """`agent` is None while nobody's key stands behind the package."""
    emit(_head(agent, manifest), False)
    for title, lines in (
        ("operations", map(_operation, manifest.api)),
        ("models", _models(manifest)),
        ("runtimes, the first that a host has", map(_runtime, manifest.runtimes)),
        ("asks for", capability_words(manifest)),
        ("test vectors", _vectors(manifest.vectors)),
        ("revenue", _revenue(manifest)),
        (
            "workflow",
            (
                f"{step.name}: {step.operation} of {step.agent[:14]}…, at most {step.times}x"
                for step in manifest.workflow
            ),
        ),
        ("provenance", (f"{one.kind} {one.digest}" for one in manifest.provenance)),
        (
            "files",
            (f"{file.path:<32} {file.role:<14} {file.size:>14,} bytes  {file.digest[:14]}…" for file in manifest.files),
        ),
    ):
        _section(title, list(lines))


def _section(title: str, lines: Sequence[str]) -> None:
    if lines:
        out.print(title, style="dim")
    for line in lines:
        out.print(plain(f"  {line}"), markup=False, soft_wrap=True)


def _head(agent: AgentId | None, manifest: Manifest) -> dict[str, Any]:
    head = {
        "agent": "follows from the publisher's key" if agent is None else to_hex(agent),
        "name": f"{manifest.name} {manifest.version}",
        "publisher": "not signed yet" if agent is None else manifest.publisher,
        "summary": manifest.summary,
        "licence": manifest.licence,
        "context": f"{manifest.context:,} tokens",
        "size": f"{manifest.size:,} bytes in {len(manifest.files)} files",
        "parent": manifest.parent or "none",
        "supersedes": manifest.supersedes or "nothing",
    }
    return head | ({"width": manifest.width} if manifest.width is not None else {})


def _operation(one: Operation) -> str:
    takes = one.input.get("type", "anything that its schema takes") if one.input else ""
    words = {"chat": "messages in, text out", "embed": "texts in, vectors out"}.get(
        one.name, f"takes {takes or 'anything'}"
    )
    streams = ", streams" if one.stream or one.name == "chat" else ""
    limit = f", at most {one.max_input:,} bytes" if one.max_input else ""
    return f"{one.name:<20} {words}{streams}{limit}"


def _models(manifest: Manifest) -> Iterator[str]:
    for model in manifest.models:
        bases = "".join(f", from {base.model[:14]}… ({base.licence})" for base in model.bases)
        yield f"{model.alias:<12} {to_hex(model_id(manifest, model))}  {model.architecture}, {model.precision}{bases}"


def _runtime(one: Runtime) -> str:
    where = f", on {one.platform}" if one.platform else ""
    model = f" with model {one.model}" if one.model else ""
    repeats = f", {_CLASSES[one.determinism]}" if one.determinism != "none" else ""
    return f"{one.engine:<16} {one.entry}{model}, {one.precision}, {one.numeric}{where}{repeats}"


def capability_words(manifest: Manifest) -> Iterator[str]:
    """What the agent wants that is denied to it otherwise."""
    asked = manifest.capabilities
    if asked.models:
        yield f"models through its host: {', '.join(asked.models)}"
    if asked.egress:
        yield f"the network, to {', '.join(asked.egress)} only"
    if asked.agents:
        yield f"to call {len(asked.agents)} other agents"
    if asked.state:
        yield f"to keep {asked.state:,} bytes between requests"
    for wanted, words in ((asked.clock, "the time"), (asked.randomness, "randomness"), (asked.device, "a GPU")):
        if wanted:
            yield words
    if asked == type(asked)():
        yield "nothing beyond its own files"


def _vectors(vectors: Sequence[Vector]) -> Iterator[str]:
    for one in vectors:
        expected = "text" if one.output is not None else "digest" if one.digest is not None else "vectors"
        yield f"{one.operation}: expects {expected}, at most {one.max_tokens} tokens"


def _revenue(manifest: Manifest) -> Iterator[str]:
    revenue = manifest.revenue
    for share in revenue.split:
        yield f"{share_words(share.bps)} to the {share.role} {share.payee}"
    if revenue.split:
        yield f"{share_words(10_000 - sum(share.bps for share in revenue.split))} to the host"
    if revenue.royalty:
        yield f"asks {share_words(revenue.royalty)} of what derives from it"
    for one in revenue.upstream:
        yield f"owes {share_words(one.bps)} to the owner of {one.agent}"
    for words, amount in (("prompt", revenue.floor_in), ("output", revenue.floor_out)):
        if amount != "0":
            yield f"at least {format_amount(int(amount), DECIMALS)} coins per 1,000 {words} tokens"
