"""Turns a project into a package, and hands packages and papers to a coordinator. What goes on the chain is
lading.release's.

Nothing of a project is run here; files are hashed, copied into a blob store, and served to the coordinator over the
same link that asked it to hold them.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from lading import schemas
from lading.blobs import BlobStore
from lading.errors import BadProject, PublishRefused
from lading.models import derived
from lading.packages.delta import update_deltas
from lading.project import (
    FileEntry,
    Project,
    floor,
    load_project,
    open_source,
    operations,
    parties,
    recorded,
    source_of,
    vectors,
)
from lading_contracts.registry import Party
from lading_net.messages import MessageStream
from lading_net.ports import Link
from lading_protocol.eip712 import Domain
from lading_protocol.ids import Address, AgentId, Digest, TermsId, digest, to_hex
from lading_protocol.manifest import SCHEMA, Manifest, agent_id, dump
from lading_protocol.messages import (
    PUBLISH,
    RELEASE,
    Follow,
    Held,
    Kept,
    Move,
    Pointer,
    Publish,
    ToFollower,
    ToPublisher,
    Withdraw,
)
from lading_protocol.parts import CHUNK_SIZE, File, Revenue, Share, file_entry, index_blob
from lading_protocol.release import KnownPointer, check_pointer
from lading_protocol.transcript import sha256

__all__ = ["More", "announce", "current", "hand_over", "load_project", "pack", "parties"]

Progress = Callable[[int, int], None]
_to_publisher = msgspec.msgpack.Decoder(ToPublisher)
_to_follower = msgspec.msgpack.Decoder(ToFollower)


class More(msgspec.Struct, frozen=True):
    """What a manifest says that its project does not: the table that was agreed (the project's own when empty), what
    it derives from and which release it follows. `vectors` False leaves the test vectors out. `deltas` adds the short
    ways from the files of the release that it follows. `progress` hears of bytes read.
    """

    table: tuple[Party, ...] = ()
    parent: AgentId | None = None
    supersedes: AgentId | None = None
    vectors: bool = True
    deltas: bool = False
    progress: Progress = lambda done, total: None


def pack(
    project: Project,
    folder: Path,
    publisher: Address,
    store: BlobStore,
    more: More = More(),  # noqa: B008
) -> tuple[AgentId, Manifest]:
    """Hash every file, put it into the store, and write the manifest. Raises BadProject, BadManifest, StoreFull."""
    entry = project.agent
    api = operations(project, folder)
    schemas.check_operations(api)
    files = _take_all(project.file, folder, store, more.progress)
    models, runtimes = derived(project, files, folder)
    if more.deltas and more.supersedes is not None:
        files += update_deltas(store, more.supersedes, files)
    manifest = Manifest(
        schema=SCHEMA,
        name=entry.name,
        version=entry.version,
        publisher=to_hex(publisher),
        summary=entry.summary,
        licence=entry.licence,
        api=api,
        context=entry.context,
        width=entry.width,
        runtimes=runtimes,
        files=files,
        parent=to_hex(more.parent) if more.parent else entry.parent,
        supersedes=to_hex(more.supersedes) if more.supersedes else None,
        models=models,
        vectors=_vectors(project, folder, api) if more.vectors else (),
        capabilities=project.capabilities,
        resources=project.resources,
        revenue=_revenue(project, publisher, more.table),
        workflow=project.step,
        provenance=project.provenance,
    )
    data = dump(manifest)
    store.put(data)
    return agent_id(data), manifest


def _vectors(project: Project, folder: Path, api: Any) -> Any:
    found = vectors(project, folder)
    for number, one in enumerate(found, 1):
        if not one.is_recorded:
            why = f"The test vector {number} (of {one.operation!r}) expects nothing yet."
            raise BadProject(why, hint="Record what the agent answers: lading agent test --record.")
    schemas.check_vectors(api, found)
    return tuple(map(recorded, found))


def _revenue(project: Project, publisher: Address, table: tuple[Party, ...]) -> Revenue:
    agreed = table or (parties(project, publisher) if project.party else ())
    named = project.revenue
    return Revenue(
        split=tuple(_share(one) for one in agreed),
        royalty=project.royalty_bps,
        floor_in=floor(named.floor_in, "floor_in"),
        floor_out=floor(named.floor_out, "floor_out"),
        upstream=named.upstream,
    )


def _share(party: Party) -> Share:
    return msgspec.convert({"role": party.role.name.lower(), "payee": to_hex(party.payee), "bps": party.bps}, Share)


def _take_all(entries: tuple[FileEntry, ...], folder: Path, store: BlobStore, progress: Progress) -> tuple[File, ...]:
    places = [source_of(folder, entry.source or entry.path) for entry in entries]
    total, done = sum(place.stat().st_size for place in places), 0
    files = []
    for entry, place in zip(entries, places, strict=True):

        def advance(more: int, before: int = done) -> None:
            progress(before + more, total)

        files.append(_take(entry, place, store, advance))
        done += files[-1].size
    return tuple(files)


def _take(entry: FileEntry, place: Path, store: BlobStore, advance: Callable[[int], None]) -> File:
    whole, size = hashlib.sha256(), 0
    chunks: list[Digest] = []
    try:
        with os.fdopen(open_source(place), "rb") as reader:
            while data := reader.read(CHUNK_SIZE):
                whole.update(data)
                chunks.append(sha256(data))
                size += len(data)
                advance(size)
    except OSError as error:
        raise BadProject(f"{place} cannot be read ({error.strerror}).") from error
    file = file_entry(entry.path, entry.role, Digest(whole.digest()), size, chunks)
    store.add_file(place, digest(file.digest))
    if file.index is not None:
        store.put(index_blob(chunks))
    return file


async def hand_over(link: Link, agent: AgentId, terms: TermsId, paper: bytes = b"") -> None:
    """Ask a coordinator to hold the package; it fetches what it lacks over the same link. `paper` is a packed
    PackageSignature. Raises PublishRefused, NetError."""
    answer = await _ask(link, Publish(agent, terms, paper))
    if not isinstance(answer, Held):
        raise PublishRefused("The coordinator answers something else than that it holds the package.")


async def announce(link: Link, paper: Move | Withdraw) -> None:
    """Hand a pointer or a yank to a coordinator. Raises PublishRefused, NetError."""
    answer = await _ask(link, paper)
    if not isinstance(answer, Kept):
        raise PublishRefused("The coordinator answers something else than that it keeps the paper.")


async def current(link: Link, lineage: Digest, domain: Domain, publisher: Address, now: float) -> KnownPointer | None:
    """The pointer that a coordinator has of a lineage; None when it knows none. Raises NetError."""
    messages: MessageStream[Any] = MessageStream(await link.open(RELEASE), _to_follower)
    messages.send(Follow((lineage,)))
    await messages.drain()
    await messages.stream.close()
    while (said := await messages.recv()) is not None:
        if isinstance(said, Pointer):
            return check_pointer(said.packed, domain, publisher, now)
    return None


async def _ask(link: Link, ask: Publish | Move | Withdraw) -> Any:
    messages: MessageStream[Any] = MessageStream(await link.open(PUBLISH), _to_publisher)
    messages.send(ask)
    await messages.drain()
    answer = await messages.recv()
    await messages.stream.close()
    if answer is None or not isinstance(answer, Held | Kept):
        reason = answer.message if answer is not None else "it closed the connection"
        what = {Publish: "the package", Move: "the release pointer", Withdraw: "the yank"}[type(ask)]
        raise PublishRefused(f"The coordinator does not take {what}: {reason}")
    return answer
