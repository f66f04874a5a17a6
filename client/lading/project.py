"""A project: the folder that becomes a package, as its agent.toml describes it. Reads; packs and sends nothing.

Whatever agent.toml names lies inside the folder: no link leads out, and only plain files are read.
"""

import json
import os
import stat
import tomllib
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from lading.errors import BadProject
from lading_contracts.registry import Party, Role
from lading_protocol.errors import BadAmount, one_line
from lading_protocol.ids import Address, address
from lading_protocol.parts import (
    Attestation,
    Base,
    Bps,
    Bytes,
    Capabilities,
    Hex32,
    Name,
    Operation,
    Resources,
    Runtime,
    Step,
    Upstream,
    Vector,
    Word,
)
from lading_protocol.pricing import parse_amount

FILE = "agent.toml"
VECTORS = "vectors.jsonl"
DECIMALS = 18
MOST_TEXT = 4 << 20


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


class FileEntry(_Table, frozen=True):
    """`source` is where the file lies, relative to the project; by default at `path`."""

    path: str
    role: str
    source: str = ""


class PartyEntry(_Table, frozen=True):
    """`payee` is an address, or "publisher"."""

    role: str
    bps: Annotated[int, Meta(ge=1, le=9999)]
    payee: str = "publisher"


class AgentEntry(_Table, frozen=True):
    """`operations` names those that need no more words; the others are [[operation]] tables."""

    name: str
    version: str
    summary: str
    licence: str
    context: int
    operations: tuple[str, ...] = ()
    width: int | None = None
    parent: str | None = None
    royalty_bps: Annotated[int, Meta(ge=0, le=5000)] = 0


class OperationEntry(_Table, frozen=True):
    """As parts.Operation; a schema may also be the path of a JSON file."""

    name: Name
    input: dict[str, Any] | str = {}
    output: dict[str, Any] | str = {}
    stream: bool = False
    max_input: Bytes = 0


class ModelEntry(_Table, frozen=True):
    """As parts.Model. Precision and architecture follow from the runtime where they are left out."""

    alias: Name
    files: Annotated[tuple[str, ...], Meta(min_length=1)]
    architecture: Word = "unknown"
    precision: Word = "f32"
    bases: tuple[Base, ...] = ()


class VectorEntry(_Table, frozen=True):
    """As parts.Vector; without anything expected it waits for `lading agent test --record`."""

    operation: Name
    input: Any
    max_tokens: Annotated[int, Meta(ge=1, le=2**17)] = 256
    seed: Hex32 | None = None
    output: str | None = None
    digest: Hex32 | None = None
    near: str | None = None
    tolerance: Annotated[int, Meta(ge=0, le=1_000_000)] = 0

    @property
    def is_recorded(self) -> bool:
        return any(expected is not None for expected in (self.output, self.digest, self.near))


class RevenueEntry(_Table, frozen=True):
    """Floors are coins per 1,000 tokens. `royalty_bps` is what descendants owe, `upstream` what ancestors are owed."""

    floor_in: str = "0"
    floor_out: str = "0"
    royalty_bps: Bps | None = None
    upstream: tuple[Upstream, ...] = ()


class Project(_Table, frozen=True):
    """An agent.toml. `party` lists who shares the revenue; the rest is the host's."""

    agent: AgentEntry
    runtime: Annotated[tuple[Runtime, ...], Meta(min_length=1)]
    file: Annotated[tuple[FileEntry, ...], Meta(min_length=1)]
    party: tuple[PartyEntry, ...] = ()
    operation: tuple[OperationEntry, ...] = ()
    model: tuple[ModelEntry, ...] = ()
    vector: tuple[VectorEntry, ...] = ()
    capabilities: Capabilities = Capabilities()
    resources: Resources = Resources()
    revenue: RevenueEntry = RevenueEntry()
    provenance: tuple[Attestation, ...] = ()
    step: tuple[Step, ...] = ()

    @property
    def royalty_bps(self) -> int:
        named = self.revenue.royalty_bps
        return self.agent.royalty_bps if named is None else named


def load_project(folder: Path) -> Project:
    """Raises BadProject."""
    path = folder / FILE
    if not os.path.lexists(path):
        raise BadProject(f"{path} is not there.", hint="Make one: lading agent init.")
    text = read_text(folder, FILE)
    try:
        return msgspec.convert(tomllib.loads(text), Project)
    except RecursionError:
        raise BadProject(f"{path} is not a valid project: it is nested too deeply.") from None
    except ValueError as error:  # of the parser, of a date or a number, of the structs
        raise BadProject(f"{path} is not a valid project: {one_line(error)}.") from error


def source_of(folder: Path, name: str) -> Path:
    """Where a file of the project lies, every link followed. Raises BadProject unless it is a plain file inside."""
    shown = one_line(folder / name)
    try:
        place, root = (folder / name).resolve(strict=True), folder.resolve(strict=True)
        kind = place.stat().st_mode
    except (OSError, RuntimeError, ValueError) as error:
        why = getattr(error, "strerror", None) or "it is no path, or a circle of links"
        raise BadProject(f"{shown} cannot be read ({why}).") from error
    if not place.is_relative_to(root):
        why = f"{shown} lies outside of the project's folder, or is a link that leads there."
        raise BadProject(why, hint="Copy the file into the folder.")
    if not stat.S_ISREG(kind):
        raise BadProject(f"{shown} is not a plain file.")
    return place


def open_source(place: Path) -> int:
    """A descriptor of a file that `source_of` found, even if somebody put a pipe or a link there since."""
    number = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise BadProject(f"{place} is not a plain file.")
    return number


def read_text(folder: Path, name: str) -> str:
    """A small text file of the project. Raises BadProject."""
    place = source_of(folder, name)
    if place.stat().st_size > MOST_TEXT:
        raise BadProject(f"{folder / name} has more than {MOST_TEXT:,} bytes.")
    try:
        with os.fdopen(open_source(place), encoding="utf-8") as file:
            return file.read()
    except UnicodeDecodeError:
        raise BadProject(f"{folder / name} is not UTF-8 text.") from None


def operations(project: Project, folder: Path) -> tuple[Operation, ...]:
    """What the agent does: the names first, then the tables. Raises BadProject."""
    plain = [Operation(name) for name in project.agent.operations]
    tables = [
        Operation(one.name, _schema(one.input, folder), _schema(one.output, folder), one.stream, one.max_input)
        for one in project.operation
    ]
    if not plain and not tables:
        raise BadProject("The project names no operations.", hint='Write: operations = ["chat"], or an [[operation]].')
    return (*plain, *tables)


def vectors(project: Project, folder: Path) -> tuple[VectorEntry, ...]:
    """The test vectors of agent.toml, then those of vectors.jsonl. Raises BadProject naming the line."""
    if not (folder / VECTORS).exists():
        return project.vector
    found = list(project.vector)
    for number, line in enumerate(read_text(folder, VECTORS).splitlines(), 1):
        if not line.strip():
            continue
        try:
            found.append(msgspec.json.decode(line, type=VectorEntry))
        except (msgspec.MsgspecError, RecursionError) as error:
            raise BadProject(f"{folder / VECTORS}, line {number}, is no test vector: {error}.") from error
    return tuple(found)


def parties(project: Project, publisher: Address) -> tuple[Party, ...]:
    """The split table of the project. Raises BadProject."""
    table = []
    for entry in project.party:
        try:
            role = Role[entry.role.upper()]
            payee = publisher if entry.payee == "publisher" else address(entry.payee)
        except KeyError:
            names = ", ".join(role.name.lower() for role in Role)
            raise BadProject(f"Unknown role {entry.role!r} in a [[party]]; use one of {names}.") from None
        except ValueError as error:
            raise BadProject(f"The payee of the {entry.role} is wrong: {error}.") from error
        table.append(Party(payee, role, entry.bps))
    if not table:
        raise BadProject("The project has no [[party]]: say who shares the revenue, at least the maker.")
    return tuple(table)


def floor(text: str, which: str) -> str:
    """Whole wei per 1,000 tokens from coins. Raises BadProject."""
    try:
        return str(parse_amount(text, DECIMALS))
    except BadAmount as error:
        raise BadProject(f"[revenue] {which} is wrong: {error.message}") from error


def recorded(entry: VectorEntry) -> Vector:
    return Vector(**msgspec.structs.asdict(entry))


def _schema(given: dict[str, Any] | str, folder: Path) -> dict[str, Any]:
    if not isinstance(given, str):
        return given
    try:
        found = json.loads(read_text(folder, given))
    except (ValueError, RecursionError) as error:
        raise BadProject(f"{folder / given} is not JSON: {error}.") from error
    if not isinstance(found, dict):
        raise BadProject(f"{folder / given} is no JSON Schema: it must be an object.")
    return found
