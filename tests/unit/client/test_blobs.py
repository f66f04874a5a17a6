"""Packages over the in-memory network: fetched, checked, resumed, refused."""

import random
from pathlib import Path

import pytest

from factories import key
from lading.blobs import BlobStore, fetch_package, serve_blobs
from lading.errors import BadPackage, StoreFull
from lading_net.clock import run_virtual
from lading_net.memory import MemoryNetwork
from lading_protocol.errors import BadManifest
from lading_protocol.ids import AgentId, digest
from lading_protocol.manifest import SCHEMA, Manifest, dump
from lading_protocol.messages import BLOB
from lading_protocol.parts import CHUNK_SIZE, Operation, Runtime, describe_file

WEIGHTS = random.Random(7).randbytes(2 * CHUNK_SIZE + 12345)
TOKENS = b'{"tokens": []}'


def package(store: BlobStore) -> AgentId:
    files = (describe_file("m/model.onnx", "model", WEIGHTS), describe_file("tokenizer.json", "tokenizer", TOKENS))
    manifest = Manifest(
        schema=SCHEMA,
        name="chat",
        version="1",
        publisher="0x" + "11" * 20,
        summary="x",
        licence="Apache-2.0",
        api=(Operation("chat"),),
        context=64,
        runtimes=(Runtime("memory", "m/model.onnx", "f32", "memory"),),
        files=files,
    )
    store.put(WEIGHTS)
    store.put(TOKENS)
    return AgentId(store.put(dump(manifest)))


async def fetch(source: BlobStore, target: BlobStore, agent: AgentId) -> tuple[Manifest, list[tuple[int, int]]]:
    net = MemoryNetwork(seed=1)
    here, there = net.transport(key("here")), net.transport(key("there"))
    there.handle(BLOB, serve_blobs(source))
    link = await here.dial(await there.listen("/ip4/127.0.0.1/tcp/0"), None)
    seen: list[tuple[int, int]] = []
    manifest = await fetch_package(lambda: [link], agent, target, lambda done, total: seen.append((done, total)))
    await here.close()
    await there.close()
    return manifest, seen


def test_a_package_arrives_whole_and_is_laid_out(tmp_path: Path) -> None:
    source, target = BlobStore(tmp_path / "a"), BlobStore(tmp_path / "b")
    agent = package(source)
    manifest, seen = run_virtual(fetch(source, target, agent))
    assert target.missing(manifest) == []
    assert seen[-1] == (manifest.size, manifest.size)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    target.materialise(agent, tmp_path / "laid out")
    assert (tmp_path / "laid out/m/model.onnx").read_bytes() == WEIGHTS
    assert not list(target.folder.glob("*.part"))


def test_a_fetch_goes_on_from_the_chunks_that_an_earlier_one_left(tmp_path: Path) -> None:
    source, target = BlobStore(tmp_path / "a"), BlobStore(tmp_path / "b")
    agent = package(source)
    blob = digest(describe_file("m/model.onnx", "model", WEIGHTS).digest)
    target.partial(blob).write_bytes(WEIGHTS[: CHUNK_SIZE + 99])
    _, seen = run_virtual(fetch(source, target, agent))
    assert seen[1][0] == CHUNK_SIZE
    assert target.path(blob).read_bytes() == WEIGHTS


@pytest.mark.parametrize("at", [0, CHUNK_SIZE + 5, len(WEIGHTS) - 1])
def test_an_altered_byte_is_found_and_nothing_wrong_is_kept(tmp_path: Path, at: int) -> None:
    source, target = BlobStore(tmp_path / "a"), BlobStore(tmp_path / "b")
    agent = package(source)
    blob = digest(describe_file("m/model.onnx", "model", WEIGHTS).digest)
    spoiled = bytearray(WEIGHTS)
    spoiled[at] ^= 1
    source.path(blob).write_bytes(spoiled)
    with pytest.raises(BadPackage):
        run_virtual(fetch(source, target, agent))
    assert not target.has(blob)


def test_a_manifest_under_another_digest_is_refused(tmp_path: Path) -> None:
    source, target = BlobStore(tmp_path / "a"), BlobStore(tmp_path / "b")
    agent = package(source)
    source.path(agent).write_bytes(source.path(agent).read_bytes().replace(b'"1"', b'"2"'))
    with pytest.raises(BadManifest):
        run_virtual(fetch(source, target, agent))


def test_a_store_that_is_too_small_says_so_before_it_fetches(tmp_path: Path) -> None:
    source, target = BlobStore(tmp_path / "a"), BlobStore(tmp_path / "b", quota=CHUNK_SIZE)
    agent = package(source)
    with pytest.raises(StoreFull):
        run_virtual(fetch(source, target, agent))


def test_an_altered_stored_file_is_never_laid_out(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "a")
    agent = package(store)
    blob = digest(describe_file("tokenizer.json", "tokenizer", TOKENS).digest)
    store.path(blob).write_bytes(b"{}")
    with pytest.raises(BadPackage):
        store.materialise(agent, tmp_path / "out")
    assert not (tmp_path / "out").exists()
