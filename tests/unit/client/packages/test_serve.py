"""Serving and fetching over the in-memory network: limits, hostile asks, deltas and chunks that need not be fetched."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from crates import manifest_of, package, store_file
from factories import key
from lading.blobs import BlobStore, ServeLimits, delta_entry, fetch_package
from lading_net.clock import run_virtual
from lading_net.errors import StreamReset
from lading_net.memory import MemoryNetwork
from lading_net.messages import MessageStream
from lading_net.ports import Link
from lading_protocol.ids import AgentId, digest
from lading_protocol.manifest import dump
from lading_protocol.messages import BLOB, BLOB_PART, BlobPart, FromStore, GetBlob, NoBlob
from lading_protocol.parts import CHUNK_SIZE, File
from quay import Peer, link
from unit.client.packages.test_delta import safetensors, weights

_from_store = msgspec.msgpack.Decoder(FromStore)
Story = Callable[[Link, Peer], Awaitable[None]]


def play(source: BlobStore, story: Story, limits: ServeLimits | None = None) -> float:
    """Virtual seconds that the story takes."""

    async def run() -> float:
        net = MemoryNetwork(seed=1)
        here, peer = net.transport(key("here")), Peer(net.transport(key("there")), source, limits=limits)
        found = await link(here, peer)
        began = asyncio.get_running_loop().time()
        await story(found, peer)
        took = asyncio.get_running_loop().time() - began
        await here.close()
        await peer.transport.close()
        return took

    return run_virtual(run())


@pytest.fixture
def source(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "source")


@pytest.fixture
def target(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "target")


def test_a_rate_holds_for_all_streams_together(source: BlobStore, target: BlobStore) -> None:
    agent = package(source, {"m.bin": ("weights", os.urandom(6 * CHUNK_SIZE))})

    async def story(link: Link, peer: Peer) -> None:
        await fetch_package(lambda: [link], agent, target)

    assert play(source, story) < 1
    target = BlobStore(target.folder.with_name("other"))
    assert 4.5 < play(source, story, ServeLimits(peer_rate=CHUNK_SIZE)) < 6.5
    target = BlobStore(target.folder.with_name("third"))
    assert 2 < play(source, story, ServeLimits(rate=2 * CHUNK_SIZE)) < 3.5


def test_a_peer_has_only_so_many_streams(source: BlobStore) -> None:
    blob = source.put(b"hello")

    async def story(link: Link, peer: Peer) -> None:
        streams = [MessageStream(await link.open(BLOB), _from_store) for _ in range(3)]
        for stream in streams[:2]:
            stream.send(GetBlob(blob, 0, 5))
            assert await stream.recv() == BlobPart(5, b"hello")
        with pytest.raises(StreamReset):
            await ask(streams[2], blob)
        await streams[0].close()
        await asyncio.sleep(1)
        again = MessageStream(await link.open(BLOB), _from_store)
        again.send(GetBlob(blob, 0, 5))
        assert await again.recv() == BlobPart(5, b"hello")

    play(source, story, ServeLimits(peer_streams=2))


async def ask(stream: MessageStream[BlobPart | NoBlob], blob: bytes) -> None:
    stream.send(GetBlob(blob, 0, 5))
    await stream.recv()


def test_absurd_asks_are_answered_with_nothing(source: BlobStore) -> None:
    blob = source.put(b"hello")

    async def story(link: Link, peer: Peer) -> None:
        stream = MessageStream(await link.open(BLOB), _from_store)
        for ask, answer in (
            (GetBlob(blob, 2**53, BLOB_PART), BlobPart(5, b"")),
            (GetBlob(blob, 5, 1), BlobPart(5, b"")),
            (GetBlob(blob, 4, BLOB_PART), BlobPart(5, b"o")),
            (GetBlob(b"?" * 32, 0, 1), NoBlob(b"?" * 32)),
        ):
            stream.send(ask)
            assert await stream.recv() == answer

    play(source, story)


def test_a_flood_of_tiny_asks_is_held_to_the_rate(source: BlobStore) -> None:
    blob = source.put(b"hello")

    async def story(link: Link, peer: Peer) -> None:
        stream = MessageStream(await link.open(BLOB), _from_store)
        for _ in range(1000):
            stream.send(GetBlob(blob, 0, 1))
        for _ in range(1000):
            await stream.recv()

    assert play(source, story, ServeLimits(peer_rate=1_000_000)) > 2  # 4,096 bytes each


def update(source: BlobStore, spoil: bool = False) -> tuple[AgentId, AgentId, File]:
    """Two versions of a package, the second with a delta."""
    before = weights(1, rows=3000)
    old = store_file(source, "m.safetensors", "weights", safetensors(before))
    tuned = before | {"head": before["head"] + before["head"] * 1e-5}
    new = store_file(source, "m.safetensors", "weights", safetensors(tuned))
    delta = delta_entry(source, old, new, "update.delta")
    assert delta is not None
    if spoil:
        made = store_file(
            source, "update.delta", "delta", source.read(digest(delta.digest), 0, delta.size)[:-4] + b"oops"
        )
        delta = msgspec.structs.replace(made, base=delta.base, target=delta.target)
    first = AgentId(source.put(dump(manifest_of((old,)))))
    second = AgentId(source.put(dump(manifest_of((new, delta), "2"))))
    return first, second, delta


def test_an_update_comes_as_a_delta_where_the_old_version_is_held(source: BlobStore, target: BlobStore) -> None:
    first, second, delta = update(source)

    async def story(link: Link, peer: Peer) -> None:
        await fetch_package(lambda: [link], first, target)
        peer.sent = 0
        seen: list[tuple[int, int]] = []
        manifest = await fetch_package(lambda: [link], second, target, lambda *step: seen.append(step))
        assert peer.sent < delta.size + 4000
        assert target.missing(manifest) == []
        assert not target.has(digest(delta.digest))
        assert seen[-1] == (manifest.files[0].size,) * 2
        fresh = BlobStore(target.folder.with_name("fresh"))
        peer.sent = 0
        await fetch_package(lambda: [link], second, fresh)
        assert peer.sent > manifest.files[0].size

    play(source, story)


def test_whoever_spreads_a_package_keeps_its_deltas(source: BlobStore, target: BlobStore) -> None:
    _, second, delta = update(source)

    async def story(link: Link, peer: Peer) -> None:
        await fetch_package(lambda: [link], second, target, deltas=True)
        assert target.has(digest(delta.digest))

    play(source, story)


@pytest.mark.parametrize("trouble", ["spoiled", "absent"])
def test_a_delta_of_no_use_costs_only_itself(source: BlobStore, target: BlobStore, trouble: str) -> None:
    first, second, delta = update(source, spoil=trouble == "spoiled")
    if trouble == "absent":
        source.path(digest(delta.digest)).unlink()

    async def story(link: Link, peer: Peer) -> None:
        await fetch_package(lambda: [link], first, target)
        manifest = await fetch_package(lambda: [link], second, target)
        assert target.missing(manifest) == []
        assert not target.has(digest(delta.digest))

    play(source, story)


def test_chunks_of_other_files_are_not_fetched_again(source: BlobStore, target: BlobStore) -> None:
    old, new = os.urandom(4 * CHUNK_SIZE), os.urandom(CHUNK_SIZE)
    first = package(source, {"m.onnx": ("model", old)})
    second = package(source, {"n.onnx": ("model", old[CHUNK_SIZE:] + new + old[:CHUNK_SIZE])}, "2")

    async def story(link: Link, peer: Peer) -> None:
        await fetch_package(lambda: [link], first, target)
        peer.sent = 0
        await fetch_package(lambda: [link], second, target)
        assert CHUNK_SIZE < peer.sent < CHUNK_SIZE + 4000

    play(source, story)


def test_a_large_file_is_fetched_by_its_index_and_an_altered_one_is_had_again(
    source: BlobStore, target: BlobStore
) -> None:
    agent = package(source, {"m.bin": ("weights", bytes(257 * CHUNK_SIZE))})

    async def story(link: Link, peer: Peer) -> None:
        manifest = await fetch_package(lambda: [link], agent, target)
        (file,) = manifest.files
        assert file.index is not None
        assert target.missing(manifest) == []
        index = target.path(digest(file.index))
        index.write_bytes(bytes(len(index.read_bytes())))
        target.path(digest(file.digest)).unlink()
        await fetch_package(lambda: [link], agent, target)
        assert target.missing(manifest) == []

    play(source, story)
