"""`lading agent run` and `lading agent test`: an agent on this machine, before anybody else sees it."""

import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter

from lading import keyfile, publisher, schemas
from lading.cli import context
from lading.cli.agent_publish import own_store
from lading.cli.auctions import typed_agent
from lading.cli.flags import Home, Json, Key, Switch
from lading.cli.output import FAILURE, emit, emit_rows, err, out, plain, transfer
from lading.errors import BadProject, BadRequest
from lading.project import VECTORS, Project, VectorEntry, vectors
from lading.settings import Settings
from lading_node.trial import Answer, Finding, Trial, examine, expectation, opened
from lading_node.vectors import request_of
from lading_protocol.ids import Address, AgentId, to_hex
from lading_protocol.manifest import Manifest
from lading_protocol.messages import ChatRequest, EmbedRequest, Message, Request, Sampler
from lading_protocol.parts import Operation, Vector

_NOBODY = Address(bytes(20))
_NUMBERS_SHOWN = 4


class Ask(msgspec.Struct, frozen=True):
    """How a question is put. `temperature` is None for greedy."""

    system: str | None
    max_tokens: int
    temperature: float | None
    seed: int | None


async def run(
    package: str,
    given: Annotated[str | None, Parameter(name="input")] = None,
    /,
    *,
    operation: str | None = None,
    json_input: Annotated[str | None, Parameter(name="--input")] = None,
    system: str | None = None,
    max_tokens: int = 256,
    temperature: float | None = None,
    seed: int | None = None,
    home: Home = None,
    key: Key = None,
    as_json: Json = False,
) -> int:
    """Ask an agent on this machine, in the sandbox that a host would run it in.

    Without an input, and at a terminal, it is a conversation; an empty line ends it.

    Parameters
    ----------
    package
        A project folder, or the 0x digest of an agent in your own store.
    given
        What to ask, as text. Read from standard input when left out.
    operation
        Which one; the agent's first when left out.
    json_input
        What to ask as JSON, or @FILE with it.
    system
        Instructions that come before a chat.
    max_tokens
        Stop after this many output tokens.
    temperature
        Up to 2; left out, the likeliest token is taken.
    seed
        A number that makes a sampled answer repeatable.
    """
    chosen = context.settings(home=home, key=key)
    agent, manifest = packed(chosen, package, as_json)
    which = _operation(manifest, operation)
    ask = Ask(system, max_tokens, temperature, seed)
    talks = given is None and json_input is None and sys.stdin.isatty() and which.name == "chat" and not as_json
    first = None if talks else _question(which, given, json_input)
    async with opened(own_store(chosen), agent) as trial:
        if not as_json:
            err.print(f"[dim]{_ready_words(trial)}[/]", soft_wrap=True)
        if first is not None:
            await _once(trial, _request(which, first, ask), as_json)
        else:
            await _converse(trial, ask)
    return 0


async def try_vectors(
    folder: Path, /, *, record: Switch = False, home: Home = None, key: Key = None, as_json: Json = False
) -> int:
    """Run an agent's test vectors in the sandbox that a host would run it in.

    Each is answered twice, resumed in the middle, and scored as an auditor would. Exits 1 when one does not hold.

    Parameters
    ----------
    folder
        The project folder.
    record
        Write what the agent answers now into vectors.jsonl, as what is expected from then on.
    """
    chosen = context.settings(home=home, key=key)
    project = publisher.load_project(folder)
    agent, manifest = packed(chosen, str(folder), as_json)
    entries = vectors(project, folder) or (_first_vectors(manifest) if record else ())
    if not entries:
        raise BadProject(
            f"{folder} has no test vectors.",
            hint=f"Write a line of JSON into {VECTORS}, then: lading agent test --record.",
        )
    schemas.check_vectors(manifest.api, entries)
    async with opened(own_store(chosen), agent) as trial:
        if record:
            entries = await _record(trial, project, folder, entries)
        waiting = [number for number, one in enumerate(entries, 1) if not one.is_recorded]
        if waiting:
            raise BadProject(
                f"Test vector {waiting[0]} expects nothing yet.", hint="Record it: lading agent test --record."
            )
        asked = [Vector(**msgspec.structs.asdict(one)) for one in entries]
        findings = await examine(trial, asked, lambda one: None)
    _show_findings(findings, as_json)
    return FAILURE if any(one.trouble for one in findings) else 0


# --- inside ---


def packed(chosen: Settings, package: str, as_json: bool) -> tuple[AgentId, Manifest]:
    """In the publisher's own store; under nobody's name while there is no key."""
    store, path = own_store(chosen), Path(package)
    if package.startswith("0x") and not path.exists():
        agent = typed_agent(package)
        return agent, store.manifest(agent)
    project = publisher.load_project(path)
    who = keyfile.load_key(chosen.key_path).address if chosen.key_path.exists() else _NOBODY
    with transfer(f"packing {project.agent.name}") as progress:
        task = progress.tasks[0].id
        more = publisher.More(
            vectors=False, progress=lambda done, total: progress.update(task, completed=done, total=total)
        )
        return publisher.pack(project, path, who, store, more)


def _operation(manifest: Manifest, name: str | None) -> Operation:
    if name is None:
        return manifest.api[0]
    for one in manifest.api:
        if one.name == name:
            return one
    raise BadRequest(f"The agent does not do {name!r}.", hint=f"It does: {', '.join(manifest.operations)}.")


def _question(which: Operation, given: str | None, json_input: str | None) -> Any:
    """What the caller gave: JSON, or text. A call takes text that is JSON as what it says."""
    if json_input is not None:
        return _json(_file_text(json_input[1:]) if json_input.startswith("@") else json_input)
    text = given if given is not None else sys.stdin.read()
    if which.name in ("chat", "embed"):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"The input is not JSON: {error}.", hint="A string needs quotes: '\"like this\"'.") from error


def _file_text(path: str) -> str:
    try:
        return Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no text"
        raise BadRequest(f"The input {path} cannot be read ({why}).") from error


def _request(which: Operation, question: Any, ask: Ask) -> Request:
    schemas.check_input(which, question)
    request = request_of(which.name, question, ask.max_tokens)
    return _styled(request, ask) if isinstance(request, ChatRequest) else request


def _styled(request: ChatRequest, ask: Ask) -> ChatRequest:
    messages = request.messages
    if ask.system is not None:
        messages = (Message("system", ask.system), *messages)
    sampler = request.sampler
    if ask.temperature is not None or ask.seed is not None:
        seed = os.urandom(32) if ask.seed is None else ask.seed.to_bytes(32, "big", signed=True)
        sampler = Sampler(seed, temperature=1.0 if ask.temperature is None else ask.temperature)
    return msgspec.structs.replace(request, messages=messages, sampler=sampler)


async def _once(trial: Trial, request: Request, as_json: bool) -> None:
    answer = await trial.ask(request, (lambda text: None) if as_json else _show)
    if as_json:
        print(json.dumps(_record_of(trial, answer)))
        return
    out.print()
    _show_rows(request, answer)
    err.print(f"[dim]{_cost_words(trial, answer)}[/]", soft_wrap=True)


async def _converse(trial: Trial, ask: Ask) -> None:
    turns: list[Message] = []
    while line := _typed_line():
        turns.append(Message("user", line))
        request = _styled(ChatRequest(tuple(turns), ask.max_tokens, Sampler(bytes(32), temperature=0.0)), ask)
        answer = await trial.ask(request, _show)
        turns.append(Message("assistant", answer.text))
        out.print()
        err.print(f"[dim]{_cost_words(trial, answer)}[/]", soft_wrap=True)


def _typed_line() -> str:
    try:
        return input("> ").strip()
    except EOFError:
        return ""


def _show(text: str) -> None:
    """As it came; but what a terminal would obey is only shown there, never done."""
    sys.stdout.write(plain(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def _show_rows(request: Request, answer: Answer) -> None:
    if answer.rows is None or not isinstance(request, EmbedRequest):
        return
    for text, row in zip(request.inputs, answer.rows.vectors, strict=True):
        numbers = memoryview(row).cast("f").tolist()
        length = sum(number * number for number in numbers) ** 0.5
        some = ", ".join(f"{number:.4f}" for number in numbers[:_NUMBERS_SHOWN])
        line = f"{text[:40]!r}: {len(numbers)} numbers of length {length:.4f}: [{some}, …]"
        out.print(plain(line), markup=False, soft_wrap=True)


def _ready_words(trial: Trial) -> str:
    ready = trial.ready
    name = f"{trial.manifest.name} {trial.manifest.version}"
    walls = ", ".join(ready.confinement) or "nothing"
    tier = f"tier {ready.tier}, " if ready.tier else ""
    return plain(f"{name} on {ready.engine} {ready.version}: loaded in {ready.load_ms} ms, {tier}held by {walls}")


def _cost_words(trial: Trial, answer: Answer) -> str:
    made = len(answer.ids)
    rate = f", {made / answer.seconds:,.0f} a second" if made and answer.seconds > 0 else ""
    memory = trial.engine.health().memory
    used = f"; {memory >> 20:,} MiB of memory" if memory else ""
    return f"{answer.prompt_tokens} + {made} tokens in {answer.seconds:.2f} s{rate}{used}"


def _record_of(trial: Trial, answer: Answer) -> dict[str, Any]:
    ready, rows = trial.ready, answer.rows
    told: dict[str, Any] = {
        "agent": to_hex(trial.agent),
        "text": answer.text,
        "finish": answer.finish,
        "usage": {"prompt_tokens": answer.prompt_tokens, "completion_tokens": len(answer.ids)},
        "seconds": round(answer.seconds, 6),
        "first_token_seconds": round(answer.first, 6),
        "engine": ready.engine,
        "version": ready.version,
        "load_ms": ready.load_ms,
        "tier": ready.tier,
        "confinement": list(ready.confinement),
        "memory": trial.engine.health().memory,
    }
    if rows is not None:
        told["width"] = rows.width
        told["vectors"] = [memoryview(row).cast("f").tolist() for row in rows.vectors]
    return told


def _first_vectors(manifest: Manifest) -> tuple[VectorEntry, ...]:
    """Something to begin with, for operations that take plain text."""
    names = [name for name in manifest.operations if name in ("chat", "embed")]
    return tuple(VectorEntry(name, "Hello.", max_tokens=32) for name in names)


async def _record(
    trial: Trial, project: Project, folder: Path, entries: Sequence[VectorEntry]
) -> tuple[VectorEntry, ...]:
    """What stands in agent.toml stays there; the others are written anew."""
    own = len(project.vector)
    if any(not one.is_recorded for one in entries[:own]):
        raise BadProject(
            "A [[vector]] of agent.toml expects nothing, and only vectors.jsonl is written here.",
            hint=f"Move it to {VECTORS}, a line of JSON.",
        )
    made = []
    for entry in entries[own:]:
        vector = await expectation(trial, Vector(**msgspec.structs.asdict(entry)))
        made.append(VectorEntry(**msgspec.structs.asdict(vector)))
    _write(folder / VECTORS, b"".join(_line(one) for one in made))
    return (*entries[:own], *made)


def _line(entry: VectorEntry) -> bytes:
    """Without what has its usual value."""
    usual = VectorEntry(entry.operation, entry.input)
    told = {
        name: value
        for name, value in msgspec.structs.asdict(entry).items()
        if name in ("operation", "input") or value != getattr(usual, name)
    }
    return json.dumps(told, ensure_ascii=False).encode() + b"\n"


def _write(path: Path, data: bytes) -> None:
    """All of it or nothing."""
    number, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(number, "wb") as file:
            file.write(data)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def _show_findings(findings: Sequence[Finding], as_json: bool) -> None:
    if as_json:
        emit_rows([msgspec.structs.asdict(one) for one in findings], True, "")
        return
    rows = [
        {
            "": one.number,
            "operation": one.operation,
            "as expected": one.expected,
            "twice": one.again,
            "resumed": one.resumed,
            "scored": one.scored,
            "tokens": one.tokens,
            "time": f"{one.seconds:.2f} s",
        }
        for one in findings
    ]
    emit_rows(rows, False, "")
    for one in findings:
        if one.trouble:
            out.print(plain(f"{one.number}: {one.trouble}"), markup=False, soft_wrap=True)
    held = sum(not one.trouble for one in findings)
    emit({"held": f"{held} of {len(findings)}"}, False)
