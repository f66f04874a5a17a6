"""Turns a model folder into a package, and hands it to a coordinator. What goes on the chain is lading.release's.

A project is a folder with an agent.toml. Nothing of it is run here; files are hashed, copied into a blob store, and
served to the coordinator over the same link that asked it to hold them.
"""

import hashlib
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from lading.blobs import BlobStore, serve_blobs
from lading.errors import BadProject, PublishRefused
from lading_contracts.registry import Party, Role
from lading_net.messages import MessageStream
from lading_net.ports import Transport
from lading_protocol.ids import Address, AgentId, Digest, TermsId, address, digest, to_hex
from lading_protocol.manifest import SCHEMA, Manifest, agent_id, dump
from lading_protocol.messages import BLOB, PUBLISH, Held, Publish, ToPublisher
from lading_protocol.parts import CHUNK_SIZE, File, Operation, Runtime, file_entry, index_blob
from lading_protocol.transcript import sha256

_to_publisher = msgspec.msgpack.Decoder(ToPublisher)


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
    name: str
    version: str
    summary: str
    licence: str
    operations: tuple[str, ...]
    context: int
    width: int | None = None
    parent: str | None = None
    royalty_bps: Annotated[int, Meta(ge=0, le=5000)] = 0


class Project(_Table, frozen=True):
    """An agent.toml. `party` lists who shares the revenue; the rest is the host's."""

    agent: AgentEntry
    runtime: Annotated[tuple[Runtime, ...], Meta(min_length=1)]
    file: Annotated[tuple[FileEntry, ...], Meta(min_length=1)]
    party: tuple[PartyEntry, ...] = ()


def load_project(folder: Path) -> Project:
    """Raises BadProject."""
    path = folder / "agent.toml"
    try:
        return msgspec.convert(tomllib.loads(path.read_text()), Project)
    except OSError as error:
        raise BadProject(f"{path} cannot be read ({error.strerror}).", hint="Make one: lading agent init.") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise BadProject(f"{path} is not a valid project: {error}.") from error


def pack(
    project: Project, folder: Path, publisher: Address, store: BlobStore, parent: AgentId | None = None
) -> tuple[AgentId, Manifest]:
    """Hash every file, put it into the store, and write the manifest. Raises BadProject, BadManifest, StoreFull."""
    entry = project.agent
    manifest = Manifest(
        schema=SCHEMA,
        name=entry.name,
        version=entry.version,
        publisher=to_hex(publisher),
        summary=entry.summary,
        licence=entry.licence,
        api=tuple(map(Operation, entry.operations)),
        context=entry.context,
        width=entry.width,
        runtimes=project.runtime,
        files=tuple(_take(file, folder, store) for file in project.file),
        parent=to_hex(parent) if parent else entry.parent,
    )
    data = dump(manifest)
    store.put(data)
    return agent_id(data), manifest


def _take(entry: FileEntry, folder: Path, store: BlobStore) -> File:
    source = folder / (entry.source or entry.path)
    whole, size = hashlib.sha256(), 0
    chunks: list[Digest] = []
    try:
        with source.open("rb") as reader:
            while data := reader.read(CHUNK_SIZE):
                whole.update(data)
                chunks.append(sha256(data))
                size += len(data)
    except OSError as error:
        raise BadProject(f"{source} cannot be read ({error.strerror}).") from error
    file = file_entry(entry.path, entry.role, Digest(whole.digest()), size, chunks)
    store.add_file(source, digest(file.digest))
    if file.index is not None:
        store.put(index_blob(chunks))
    return file


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


async def hand_over(
    transport: Transport,
    endpoint: str,
    store: BlobStore,
    agent: AgentId,
    terms: TermsId,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Ask a coordinator to hold the package, and serve it what it lacks. Raises PublishRefused, NetError."""
    transport.handle(BLOB, serve_blobs(store, progress))
    link = await transport.dial(endpoint, None)
    messages: MessageStream[Any] = MessageStream(await link.open(PUBLISH), _to_publisher)
    messages.send(Publish(agent, terms))
    await messages.drain()
    answer = await messages.recv()
    await messages.stream.close()
    if not isinstance(answer, Held):
        reason = answer.message if answer is not None else "it closed the connection"
        raise PublishRefused(f"The coordinator does not take the package: {reason}.")
