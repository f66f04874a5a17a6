"""What a store keeps and lets go of, with several programs at it and a kill at any moment."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from crates import package, store_file
from lading.blobs import BlobStore
from lading.errors import BadPackage, StoreFull
from lading.packages import shelf
from lading.packages.partial import Partial
from lading_protocol.errors import BadManifest
from lading_protocol.ids import AgentId, digest
from lading_protocol.parts import CHUNK_SIZE, chunk_digests

WEIGHTS = os.urandom(CHUNK_SIZE + 5)


class Clock:
    def __init__(self) -> None:
        self.now = 1e9

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> BlobStore:
    return BlobStore(tmp_path / "store", clock=clock)


def add(store: BlobStore, clock: Clock, name: bytes, **more: tuple[str, bytes]) -> AgentId:
    clock.now += 1000
    return package(store, {"model.bin": ("model", name * 1000), **more})


def names(store: BlobStore) -> set[str]:
    return {path.name for path, _ in shelf.entries(store.folder)} - {".lock"}


def test_packages_are_listed_with_size_use_and_pin(store: BlobStore, clock: Clock) -> None:
    old, new = add(store, clock, b"old"), add(store, clock, b"new", readme=("readme", b"hello"))
    store.pin(old)
    first, second = store.packages()
    assert (first.agent, first.size, first.held, first.used, first.pinned) == (new, 3005, 3005, clock.now, False)
    assert (second.agent, second.used, second.pinned, second.whole) == (old, clock.now - 1000, True, True)
    store.path(digest(first.manifest.files[0].digest)).unlink()
    assert store.packages()[0].held < store.packages()[0].size


def test_the_package_unused_longest_goes_first_and_no_more_than_needed(store: BlobStore, clock: Clock) -> None:
    agents = [add(store, clock, name) for name in (b"one", b"two", b"six")]
    clock.now += 1
    store.touch(agents[0])
    clock.now += 1000
    freed = store.collect(100)
    assert freed >= 3000
    assert [one.agent for one in store.packages()] == [agents[0], agents[2]]


def test_what_a_kept_manifest_names_stays(store: BlobStore, clock: Clock) -> None:
    shared = ("readme", b"shared" * 100)
    old, new = add(store, clock, b"old", readme=shared), add(store, clock, b"new", readme=shared)
    clock.now += 1000
    store.pin(new)
    store.collect(1 << 30)
    assert [one.agent for one in store.packages()] == [new]
    assert store.packages()[0].whole
    assert not store.has(old)


def test_pinned_held_recent_and_arriving_packages_stay(store: BlobStore, clock: Clock) -> None:
    pinned, held, arriving, recent = (add(store, clock, name) for name in (b"pin", b"hold", b"arrive", b"recent"))
    store.pin(pinned)
    hold = store.hold(held)
    file = store.manifest(arriving).files[0]
    store.path(digest(file.digest)).unlink()
    partial = Partial(store, file, chunk_digests(file))
    clock.now += shelf.RECENT_SECONDS - 1
    assert store.collect(1 << 30) == 0
    clock.now += 100
    store.collect(1 << 30)
    assert {one.agent for one in store.packages()} == {pinned, held, arriving}
    assert recent not in {one.agent for one in store.packages()}
    hold.release()
    partial.close()
    store.collect(1 << 30)
    assert {one.agent for one in store.packages()} == {pinned}


def test_blobs_that_nobody_names_go_after_an_hour(store: BlobStore, clock: Clock) -> None:
    store.put(b"a file of a package that is being made")
    clock.now += 3599
    store.touch(store.put(b"another"))
    clock.now += 2
    assert store.collect(0) == len(b"a file of a package that is being made")
    assert store.has(store.put(b"another"))


def test_leftovers_of_a_kill_go_and_what_is_being_written_stays(store: BlobStore, clock: Clock) -> None:
    (store.folder / ("0" * 64 + ".dead.new")).write_bytes(b"x" * 50)
    with store.incoming(b"\1" * 32, 10) as writer:
        assert writer is not None
        assert store.collect(0) == 50
        assert [name for name in names(store) if name.endswith(".new")]


def test_downloads_that_nobody_continues_go_after_a_week(store: BlobStore, clock: Clock) -> None:
    part = store.partial(b"\2" * 32)
    part.write_bytes(b"x" * 70)
    os.utime(part, (clock.now, clock.now))
    clock.now += shelf.PARTIAL_SECONDS - 1
    assert store.collect(0) == 0
    clock.now += 2
    assert store.collect(0) == 70


def test_room_is_made_within_the_quota_or_the_refusal_names_the_figures(tmp_path: Path, clock: Clock) -> None:
    store = BlobStore(tmp_path / "small", quota=10_000, clock=clock)
    first = add(store, clock, b"one")
    clock.now += 1000
    store.put(b"z" * 8_000)
    assert not store.has(first)
    with pytest.raises(StoreFull, match=r"9,000 bytes are needed in .*small, 2,000 are free"):
        store.put(b"y" * 9_000)
    assert BlobStore(tmp_path / "small", quota=10_000, clock=clock, evict=False).used() == 8_000


def test_a_store_that_may_not_evict_keeps_everything(tmp_path: Path, clock: Clock) -> None:
    store = BlobStore(tmp_path / "kept", quota=10_000, evict=False, clock=clock)
    agent = add(store, clock, b"one")
    clock.now += 1e6
    with pytest.raises(StoreFull):
        store.put(b"z" * 8_000)
    assert store.packages()[0].agent == agent


def test_a_partial_file_counts_with_its_whole_size(tmp_path: Path) -> None:
    source, store = BlobStore(tmp_path / "a"), BlobStore(tmp_path / "b", quota=CHUNK_SIZE * 2)
    file = store_file(source, "model.bin", "model", WEIGHTS)
    partial = Partial(store, file, chunk_digests(file))
    assert store.used() == file.size
    with pytest.raises(StoreFull):
        store.put(bytes(CHUNK_SIZE))
    partial.close()


def test_what_was_recovered_is_only_what_is_right(tmp_path: Path) -> None:
    source, store = BlobStore(tmp_path / "a"), BlobStore(tmp_path / "b")
    data = os.urandom(5 * CHUNK_SIZE + 77)
    file = store_file(source, "model.bin", "model", data)
    first = Partial(store, file, chunk_digests(file))
    for index in (1, 3, 5):
        assert first.write(index, [data[index * CHUNK_SIZE :][:CHUNK_SIZE]])
    assert not first.write(0, [bytes(CHUNK_SIZE)])
    first.close()
    with store.partial(digest(file.digest)).open("r+b") as part:
        part.seek(3 * CHUNK_SIZE + 9)
        part.write(b"spoiled")
    again = Partial(store, file, chunk_digests(file))
    assert again.recover() == CHUNK_SIZE + 77
    assert again.lacking() == [0, 2, 3, 4]
    for index in again.lacking():
        assert again.write(index, [memoryview(data)[index * CHUNK_SIZE :][:CHUNK_SIZE]])
    again.finish()
    again.close()
    assert store.path(digest(file.digest)).read_bytes() == data


def test_a_finished_download_does_not_take_anothers_unfinished_file_for_its_own(tmp_path: Path) -> None:
    """One program finishes, a second begins anew, a third finishes what it had shared with the first."""
    source, store = BlobStore(tmp_path / "a"), BlobStore(tmp_path / "b")
    file = store_file(source, "model.bin", "model", WEIGHTS)
    first, third = Partial(store, file, chunk_digests(file)), Partial(store, file, chunk_digests(file))
    for partial in (first, third):
        for index in partial.lacking():
            assert partial.write(index, [WEIGHTS[index * CHUNK_SIZE :][:CHUNK_SIZE]])
    first.finish()
    second = Partial(store, file, chunk_digests(file))
    third.finish()
    assert store.path(digest(file.digest)).read_bytes() == WEIGHTS
    store.path(digest(file.digest)).unlink()
    with pytest.raises(BadPackage, match="was removed"):
        third.finish()
    assert second.lacking() == [0, 1]
    for partial in (first, second, third):
        partial.close()


def test_a_chunk_list_that_contradicts_the_digest_makes_no_blob(tmp_path: Path) -> None:
    """Else one package could put a file of its own under the digest of another's."""
    import msgspec

    source, store = BlobStore(tmp_path / "a"), BlobStore(tmp_path / "b")
    mine = store_file(source, "model.bin", "model", WEIGHTS)
    theirs = store_file(source, "model.bin", "model", bytes(reversed(WEIGHTS)))
    lie = msgspec.structs.replace(mine, digest=theirs.digest)
    partial = Partial(store, lie, chunk_digests(lie))
    for index in partial.lacking():
        assert partial.write(index, [WEIGHTS[index * CHUNK_SIZE :][:CHUNK_SIZE]])
    with pytest.raises(BadPackage, match="contradicts itself"):
        partial.finish()
    partial.close()
    assert names(store) == set()


def test_programs_that_put_and_collect_at_once_lose_nothing(tmp_path: Path) -> None:
    """Three processes: two put the same and other blobs, one collects all the time."""
    folder = tmp_path / "shared"
    BlobStore(folder)
    writes = (
        "import sys; from pathlib import Path; from lading.blobs import BlobStore\n"
        "store = BlobStore(Path(sys.argv[1]))\n"
        "for n in range(150): assert store.has(store.put(b'%d' % n * 500)), n\n"
    )
    collects = (
        "import sys; from pathlib import Path; from lading.blobs import BlobStore\n"
        "store = BlobStore(Path(sys.argv[1]))\n"
        "for _ in range(150): store.collect(0)\n"
    )
    programs = [subprocess.Popen([sys.executable, "-c", code, str(folder)]) for code in (writes, writes, collects)]
    assert [program.wait(60) for program in programs] == [0, 0, 0]
    store = BlobStore(folder)
    assert len(names(store)) == 150
    assert not list(folder.glob("*.new"))


def test_files_of_the_store_are_nobody_elses(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "own")
    blob = store.put(b"secret")
    assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(store.path(blob).stat().st_mode) == 0o600


def test_a_layout_that_stands_is_kept_and_one_that_was_touched_is_made_again(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "s")
    agent = package(store, {"m/model.bin": ("model", WEIGHTS), "readme": ("readme", b"hello")})
    out = tmp_path / "out"
    store.materialise(agent, out)
    number = (out / "m/model.bin").stat().st_ino
    store.materialise(agent, out)
    assert (out / "m/model.bin").stat().st_ino == number
    for spoil in (_change, _add, _link, _hard_link, _link_folder):
        spoil(out, tmp_path)
        store.materialise(agent, out)
        assert (out / "m/model.bin").read_bytes() == WEIGHTS
        assert sorted(path.name for path in out.iterdir()) == ["m", "readme"]
        assert not (out / "m").is_symlink()
        assert not (out / "m/model.bin").is_symlink()
        assert (out / "m/model.bin").stat().st_nlink == 1


def _change(out: Path, _: Path) -> None:
    (out / "readme").chmod(0o644)
    (out / "readme").write_bytes(b"HELLO")
    (out / "readme").chmod(0o444)


def _add(out: Path, _: Path) -> None:
    (out / "more.py").write_bytes(b"import os")


def _link(out: Path, beside: Path) -> None:
    (out / "m/model.bin").rename(beside / "elsewhere")
    (out / "m/model.bin").symlink_to(beside / "elsewhere")


def _hard_link(out: Path, beside: Path) -> None:
    os.link(out / "m/model.bin", beside / "linked")


def _link_folder(out: Path, beside: Path) -> None:
    (out / "m").rename(beside / "folder")
    (out / "m").symlink_to(beside / "folder")


def test_a_package_is_removed_by_name_and_what_others_share_stays(store: BlobStore, clock: Clock) -> None:
    shared = ("readme", b"shared" * 100)
    old, new = add(store, clock, b"old", readme=shared), add(store, clock, b"new", readme=shared)
    store.pin(old)
    assert shelf.remove(store, old) > 3000
    assert [one.agent for one in store.packages()] == [new]
    assert store.packages()[0].whole
    with pytest.raises(BadManifest):
        shelf.remove(store, old)
