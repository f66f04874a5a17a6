"""Deltas: small where the change is small, right or refused, and bounded whatever an enemy writes."""

import io
import json
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from crates import manifest_of, store_file
from lading.blobs import BlobStore, delta_entry
from lading.errors import BadDelta
from lading.packages.delta import _STEP, MAGIC, MOST_RATIO, apply_delta, make_delta, patch
from lading.packages.tensors import align
from lading.project import load_project
from lading.publisher import More, pack
from lading_protocol.ids import Address, digest
from lading_protocol.manifest import dump
from lading_protocol.parts import File


def safetensors(tensors: dict[str, np.ndarray], dtype: str = "F32") -> bytes:
    header, at, bodies = {}, 0, []
    for name, tensor in tensors.items():
        body = tensor.tobytes()
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [at, at + len(body)]}
        bodies.append(body)
        at += len(body)
    head = json.dumps(header).encode()
    return len(head).to_bytes(8, "little") + head + b"".join(bodies)


def weights(seed: int, rows: int = 300) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal((rows, 64), np.float32) for name in ("embed", "layer.0", "layer.1", "head")}


def delta_of(tmp_path: Path, old: bytes, new: bytes) -> bytes:
    (tmp_path / "old").write_bytes(old)
    (tmp_path / "new").write_bytes(new)
    out = io.BytesIO()
    make_delta(tmp_path / "old", tmp_path / "new", out)
    return out.getvalue()


def patched(tmp_path: Path, delta: bytes, size: int) -> bytes:
    (tmp_path / "delta").write_bytes(delta)
    made = io.BytesIO()
    patch(tmp_path / "old", tmp_path / "delta", size, made.write)
    return made.getvalue()


def test_a_tuned_last_layer_costs_little_more_than_itself(tmp_path: Path) -> None:
    before = weights(1)
    after = before | {"head": before["head"] + np.float32(1e-5)}
    old, new = safetensors(before), safetensors(after)
    delta = delta_of(tmp_path, old, new)
    assert patched(tmp_path, delta, len(new)) == new
    assert len(delta) < before["head"].nbytes


def test_a_tensor_that_moved_is_found_where_it_was(tmp_path: Path) -> None:
    before = weights(1)
    grown = {"added": np.arange(640, dtype=np.float32)} | before
    old, new = safetensors(before), safetensors(grown)
    delta = delta_of(tmp_path, old, new)
    assert patched(tmp_path, delta, len(new)) == new
    assert len(delta) < 4000


@given(st.binary(max_size=3000), st.binary(max_size=3000), st.integers(0, 40))
@settings(max_examples=60)
def test_any_two_files_make_the_way_there(
    tmp_path_factory: pytest.TempPathFactory, old: bytes, new: bytes, cut: int
) -> None:
    folder = tmp_path_factory.mktemp("pair")
    if cut < 20:
        new = old[:cut] + new  # something in common
    delta = delta_of(folder, old, new)
    assert patched(folder, delta, len(new)) == new
    assert sum(stretch.length for stretch in align(folder / "old", folder / "new")) == len(new)


@given(st.binary(max_size=200))
def test_a_header_that_lies_makes_a_poor_plan_and_no_wrong_file(
    tmp_path_factory: pytest.TempPathFactory, tail: bytes
) -> None:
    folder = tmp_path_factory.mktemp("lie")
    lies = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 2**70]}, "b": [1], "c": {}}).encode()
    lie = len(lies).to_bytes(8, "little") + lies + tail
    delta = delta_of(folder, lie, lie + b"more")
    assert patched(folder, delta, len(lie) + 4) == lie + b"more"


def crafted(*steps: bytes) -> bytes:
    return MAGIC + zstandard.ZstdCompressor(level=1).compress(b"".join(steps))


def step(kind: int, width: int, length: int, place: int, data: bytes = b"") -> bytes:
    return _STEP.pack(kind, width, length, place) + data


@pytest.mark.parametrize(
    ("delta", "why"),
    [
        (b"", "no delta"),
        (b"LDELTA2\n", "no delta"),
        (MAGIC, "too early"),
        (MAGIC + b"not zstd at all", "unpack"),
        (crafted(step(1, 0, 100, 0)), "another size"),
        (crafted(step(1, 0, 0, 0)), "another size"),
        (crafted(step(1, 0, 60, 0)), "beyond the end"),
        (crafted(step(1, 0, 10, 2**63)), "beyond the end"),
        (crafted(step(2, 4, 8, 46, bytes(8))), "beyond the end"),
        (crafted(step(2, 3, 9, 0, bytes(9))), "does not know"),
        (crafted(step(2, 0, 9, 0, bytes(9))), "does not know"),
        (crafted(step(9, 1, 9, 0, bytes(9))), "does not know"),
        (crafted(step(3, 1, 60, 0, b"short")), "too early"),
        (crafted(step(1, 0, 10, 0)), "too early"),
    ],
)
def test_an_enemys_delta_is_refused_with_its_reason(tmp_path: Path, delta: bytes, why: str) -> None:
    (tmp_path / "old").write_bytes(bytes(50))
    with pytest.raises(BadDelta, match=why):
        patched(tmp_path, delta, 64)


def test_a_bomb_stops_at_the_ratio_and_takes_no_memory(tmp_path: Path) -> None:
    """A gigabyte of zeros in a few kilobytes, for a file that says it is that large."""
    size, block = 1 << 30, 1 << 18
    packer = zstandard.ZstdCompressor(level=1).compressobj()
    bomb = bytearray(MAGIC)
    for _ in range(size // block):
        bomb += packer.compress(step(3, 1, block, 0, bytes(block)))
    bomb += packer.flush()
    assert len(bomb) * MOST_RATIO < size
    (tmp_path / "old").write_bytes(b"")
    (tmp_path / "delta").write_bytes(bomb)
    written = 0

    def write(data: bytes) -> None:
        nonlocal written
        written += len(data)

    tracemalloc.start()
    with pytest.raises(BadDelta, match="unfolds"):
        patch(tmp_path / "old", tmp_path / "delta", size, write)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert written <= len(bomb) * MOST_RATIO
    assert peak < 16 << 20


def test_a_frame_that_asks_for_a_huge_window_is_refused(tmp_path: Path) -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=27, enable_ldm=True)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    (tmp_path / "old").write_bytes(b"")
    delta = MAGIC + packer.compress(step(3, 1, 64, 0, os.urandom(64))) + packer.flush()
    with pytest.raises(BadDelta, match="unpack"):
        patched(tmp_path, delta, 64)


def test_a_change_of_one_bit_here_and_there_still_passes_the_ratio(tmp_path: Path) -> None:
    old = bytes(8 << 20)
    new = bytearray(old)
    for at in range(0, len(new), 200_000):
        new[at] = 1
    delta = delta_of(tmp_path, old, bytes(new))
    assert len(delta) <= len(new) // MOST_RATIO + 1000
    assert patched(tmp_path, delta, len(new)) == bytes(new)


def stored(store: BlobStore) -> tuple[File, File, File]:
    before = weights(1)
    old = store_file(store, "old.safetensors", "weights", safetensors(before))
    after = {name: tensor * np.float32(1.0001) for name, tensor in before.items()}
    new = store_file(store, "new.safetensors", "weights", safetensors(after))
    delta = delta_entry(store, old, new, "update.delta")
    assert delta is not None
    return old, new, delta


def test_an_entry_names_both_ends_and_makes_the_blob(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "s")
    old, new, delta = stored(store)
    assert (delta.base, delta.target, delta.size) == (old.digest, new.digest, store.size(digest(delta.digest)))
    dump(manifest_of((new, delta)))  # by the rules
    before = store.path(digest(new.digest)).read_bytes()
    store.path(digest(new.digest)).unlink()
    apply_delta(store, delta, new)
    assert store.path(digest(new.digest)).read_bytes() == before
    assert not list(store.folder.glob("*.new"))


def test_a_delta_that_makes_another_file_leaves_nothing(tmp_path: Path) -> None:
    import msgspec

    store = BlobStore(tmp_path / "s")
    old, new, delta = stored(store)
    other = msgspec.structs.replace(new, digest="0x" + "ab" * 32)
    with pytest.raises(BadDelta, match="makes another file"):
        apply_delta(store, delta, other)
    store.path(digest(old.digest)).unlink()
    store.path(digest(new.digest)).unlink()
    with pytest.raises(BadDelta, match="not in the store"):
        apply_delta(store, delta, new)
    assert not store.has(digest(new.digest))
    assert not list(store.folder.glob("*.new"))


def test_what_saves_nothing_is_no_delta(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "s")
    old = store_file(store, "a", "weights", os.urandom(50_000))
    new = store_file(store, "b", "weights", os.urandom(50_000))
    assert delta_entry(store, old, new, "update.delta") is None


def test_the_next_release_brings_the_way_from_the_one_before(tmp_path: Path) -> None:
    """Packed from a folder, as `lading agent update` does."""
    store, folder = BlobStore(tmp_path / "s"), tmp_path / "project"
    folder.mkdir()
    (folder / "agent.toml").write_text(PROJECT)
    before = weights(1)
    (folder / "w.bin").write_bytes(safetensors(before))
    project = load_project(folder)
    first, _ = pack(project, folder, Address(b"p" * 20), store, More(vectors=False))
    (folder / "w.bin").write_bytes(safetensors(before | {"head": before["head"] * np.float32(1.001)}))
    _, plain = pack(project, folder, Address(b"p" * 20), store, More(vectors=False, supersedes=first))
    _, second = pack(project, folder, Address(b"p" * 20), store, More(vectors=False, supersedes=first, deltas=True))
    *files, delta = second.files
    assert tuple(files) == plain.files
    assert (delta.role, delta.target) == ("delta", second.file("w.bin").digest)
    assert delta.size < second.file("w.bin").size / 3
    lost = BlobStore(tmp_path / "other")
    _, without = pack(project, folder, Address(b"p" * 20), lost, More(vectors=False, supersedes=first, deltas=True))
    assert without.files == plain.files


PROJECT = """
[agent]
name = "tuned"
version = "1"
summary = "x"
licence = "Apache-2.0"
operations = ["chat"]
context = 64

[[runtime]]
engine = "memory"
entry = "w.bin"
precision = "f32"
numeric = "memory"

[[file]]
path = "w.bin"
role = "weights"

[[party]]
role = "maker"
bps = 1000
"""
