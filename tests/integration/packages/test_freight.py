"""Packages over real direct links on loopback: many peers, bad peers, kills, full disks."""

import asyncio
import logging
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from crates import package
from lading.blobs import BlobStore, fetch_package
from lading.core.swarm import Rules
from lading.errors import NoSource, StoreFull
from lading_net.direct import DirectTransport
from lading_net.ports import Link
from lading_protocol.ids import AgentId, short
from lading_protocol.keys import PrivateKey
from quay import Habit, Peer, altered, link, silent_after_the_manifest, slow

FETCHER = Path(__file__).with_name("fetcher.py")
MIB = 1 << 20
WEIGHTS = random.Random(5).randbytes(24 * MIB + 4321)
CONTENTS = {
    "m/weights.bin": ("weights", WEIGHTS),
    "m/more.bin": ("adapter", WEIGHTS[: 3 * MIB]),
    "t.json": ("tokenizer", b"{}"),
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> BlobStore:
    return BlobStore(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def agent(source: BlobStore) -> AgentId:
    return package(source, CONTENTS)


class Harbour:
    """Peers on real sockets, each with a transport of its own, and the one that fetches."""

    def __init__(self, source: BlobStore) -> None:
        self.source = source
        self.here = DirectTransport(PrivateKey(b"h" * 32))
        self.peers: list[Peer] = []

    async def peer(self, habit: Habit | None = None) -> tuple[Peer, Link]:
        made = Peer(DirectTransport(PrivateKey(os.urandom(32))), self.source, habit)
        self.peers.append(made)
        return made, await link(self.here, made)


@asynccontextmanager
async def harbour(source: BlobStore) -> AsyncIterator[Harbour]:
    made = Harbour(source)
    try:
        yield made
    finally:
        await made.here.close()
        for peer in made.peers:
            await peer.transport.close()


def play(source: BlobStore, story: Callable[[Harbour], Awaitable[None]]) -> None:
    async def run() -> None:
        async with harbour(source) as made:
            await asyncio.wait_for(story(made), 60)

    asyncio.run(run())


def check(store: BlobStore, agent: AgentId, folder: Path) -> None:
    store.materialise(agent, folder)
    assert {path: (folder / path).read_bytes() for path in CONTENTS} == {
        path: data for path, (_, data) in CONTENTS.items()
    }
    assert not list(store.folder.glob("*.part"))


def test_four_peers_share_the_work(source: BlobStore, agent: AgentId, tmp_path: Path) -> None:
    async def story(port: Harbour) -> None:
        for _ in range(4):
            await port.peer()
        target = BlobStore(tmp_path / "t")
        await fetch_package(port.here.links, agent, target)
        check(target, agent, tmp_path / "out")
        assert all(peer.sent > MIB for peer in port.peers)
        # 27 MiB and a few bytes: the adapter's chunks are the weights' first ones, but neither was held when the fetch
        # began. How many chunks are asked twice at the end depends on the paces; none is asked of a third peer.
        assert sum(peer.sent for peer in port.peers) < Rules().holders * 28 * MIB

    play(source, story)


def test_bad_peers_cost_little_and_are_named(
    source: BlobStore, agent: AgentId, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One honest peer among a liar, a slow one, one that falls silent and one that goes away."""
    caplog.set_level(logging.INFO)

    async def story(port: Harbour) -> None:
        _, lies = await port.peer(altered)
        await port.peer(slow(0.6))
        await port.peer(silent_after_the_manifest)
        leaving, _ = await port.peer(slow(0.02))
        await port.peer()
        target = BlobStore(tmp_path / "t")
        asyncio.get_running_loop().call_later(0.3, lambda: asyncio.ensure_future(leaving.transport.close()))
        began = time.monotonic()
        await fetch_package(port.here.links, agent, target)
        assert time.monotonic() - began < 10  # the slow one alone would take a minute
        check(target, agent, tmp_path / "out")
        assert f"peer {short(lies.peer)} is given up: it sent a wrong chunk" in caplog.text

    play(source, story)


def test_without_an_honest_peer_each_is_named_with_its_fault(source: BlobStore, agent: AgentId, tmp_path: Path) -> None:
    async def story(port: Harbour) -> None:
        _, lies = await port.peer(altered)
        _, sleeps = await port.peer(silent_after_the_manifest)
        target = BlobStore(tmp_path / "t")
        with pytest.raises(NoSource) as refusal:
            await fetch_package(port.here.links, agent, target, rules=Rules(silence=1.0))
        assert f"{short(lies.peer)}: it sent a wrong chunk" in refusal.value.message
        assert f"{short(sleeps.peer)}: it sent nothing for 1 s" in refusal.value.message
        assert "m/weights.bin" in refusal.value.message
        assert target.missing(target.manifest(agent)) != []
        await port.peer()
        await fetch_package(port.here.links, agent, target)  # and what was right is kept
        check(target, agent, tmp_path / "out")

    play(source, story)


def test_a_peer_that_comes_later_helps(source: BlobStore, agent: AgentId, tmp_path: Path) -> None:
    async def story(port: Harbour) -> None:
        await port.peer(slow(0.5))
        target = BlobStore(tmp_path / "t")
        fetching = asyncio.create_task(fetch_package(port.here.links, agent, target))
        await asyncio.sleep(0.3)
        late, _ = await port.peer()
        await asyncio.wait_for(fetching, 15)
        check(target, agent, tmp_path / "out")
        assert late.sent > 20 * MIB

    play(source, story)


def test_a_fetch_that_was_cancelled_goes_on_where_it_was(source: BlobStore, agent: AgentId, tmp_path: Path) -> None:
    async def story(port: Harbour) -> None:
        steady, _ = await port.peer(slow(0.02))
        target = BlobStore(tmp_path / "t")
        fetching = asyncio.create_task(fetch_package(port.here.links, agent, target))
        await asyncio.sleep(0.8)
        fetching.cancel()
        await asyncio.wait([fetching])
        assert fetching.cancelled()
        first, steady.sent = steady.sent, 0
        await fetch_package(port.here.links, agent, target)
        check(target, agent, tmp_path / "out")
        assert first > 4 * MIB
        assert first + steady.sent < 28 * MIB + 8 * MIB

    play(source, story)


def test_a_program_that_is_killed_again_and_again_gets_there(source: BlobStore, agent: AgentId, tmp_path: Path) -> None:
    """SIGKILL at random moments, the last ones while nearly all is there."""

    async def story(port: Harbour) -> None:
        peer, _ = await port.peer(slow(0.004))
        endpoint, rng, kills = await peer.listen(), random.Random(3), 0
        while True:
            program = await asyncio.create_subprocess_exec(
                *(sys.executable, str(FETCHER), str(tmp_path / "t"), agent.hex(), endpoint),
                stdout=subprocess.PIPE,
            )
            assert program.stdout is not None
            moment = rng.uniform(0, 0.25)
            first = await program.stdout.readline()  # it has begun: what was left is found
            if kills < 6 and first:
                await asyncio.sleep(moment)
                if program.returncode is None:
                    program.kill()
            await program.communicate()
            if program.returncode == 0:
                break
            assert program.returncode == -signal.SIGKILL
            kills += 1
        assert kills >= 3
        check(BlobStore(tmp_path / "t"), agent, tmp_path / "out")
        assert peer.sent < 28 * MIB + (kills + 1) * 9 * MIB  # at most what was under way is had twice

    play(source, story)


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    source = BlobStore(tmp_path / "source")
    small = package(source, {"w.bin": ("weights", os.urandom(8 * MIB))})
    large = package(source, {"w.bin": ("weights", os.urandom(160 * MIB))})

    async def peak(port: Harbour, agent: AgentId, endpoint: str) -> int:
        program = await asyncio.create_subprocess_exec(
            *(sys.executable, str(FETCHER), str(tmp_path / agent.hex()), agent.hex(), endpoint), stdout=subprocess.PIPE
        )
        said, _ = await program.communicate()
        assert program.returncode == 0
        return int(said.split()[-1]) * 1024

    async def story(port: Harbour) -> None:
        peer, _ = await port.peer()
        endpoint = await peer.listen()
        few = await peak(port, small, endpoint)
        many = await peak(port, large, endpoint)
        assert many - few < 24 * MIB

    play(source, story)


def test_a_quota_is_named_before_anything_is_fetched(source: BlobStore, agent: AgentId, tmp_path: Path) -> None:
    async def story(port: Harbour) -> None:
        peer, _ = await port.peer()
        target = BlobStore(tmp_path / "t", quota=10 * MIB)
        with pytest.raises(StoreFull, match="are needed"):
            await fetch_package(port.here.links, agent, target)
        assert peer.sent < 10_000
        assert not list(target.folder.glob("*.part"))

    play(source, story)


FULL = """
import asyncio, os, sys
from pathlib import Path
from lading.blobs import BlobStore
from lading.errors import StoreFull
from lading.packages.partial import Partial
from lading_protocol.parts import CHUNK_SIZE, chunk_digests, describe_file
data = os.urandom(3 * CHUNK_SIZE)
file = describe_file("w.bin", "weights", data)
store = BlobStore(Path(sys.argv[1]) / "store")
partial = Partial(store, file, chunk_digests(file))
assert partial.write(0, [data[:CHUNK_SIZE]])
try:
    (Path(sys.argv[1]) / "hog").write_bytes(bytes(10 * CHUNK_SIZE))
except OSError:
    pass
try:
    partial.write(1, [data[CHUNK_SIZE : 2 * CHUNK_SIZE]])
    raise SystemExit("written on a full disk")
except StoreFull as error:
    print(error)
(Path(sys.argv[1]) / "hog").unlink()
again = Partial(store, file, chunk_digests(file))
assert again.recover() == CHUNK_SIZE
for index in again.lacking():
    assert again.write(index, [data[index * CHUNK_SIZE :][:CHUNK_SIZE]])
again.finish()
"""


def test_a_disk_that_fills_up_meanwhile_is_said_and_what_arrived_stays(tmp_path: Path) -> None:
    """On a tmpfs of 5 MiB that another program fills."""
    mount = 'mount -t tmpfs -o size=5m none "$1" && exec "$2" -c "$3" "$1"'
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh", tmp_path, sys.executable, FULL],
        capture_output=True,
        text=True,
    )
    if "unshare" in done.stderr and not os.environ.get("CI"):
        pytest.skip(f"no mount namespace: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    assert "no space left on device" in done.stdout


def test_two_programs_that_fetch_into_one_store_both_end_well(
    source: BlobStore, agent: AgentId, tmp_path: Path
) -> None:
    async def story(port: Harbour) -> None:
        peer, _ = await port.peer()
        endpoint = await peer.listen()
        programs = [
            await asyncio.create_subprocess_exec(
                *(sys.executable, str(FETCHER), str(tmp_path / "t"), agent.hex(), endpoint), stdout=subprocess.DEVNULL
            )
            for _ in range(2)
        ]
        assert [await program.wait() for program in programs] == [0, 0]
        check(BlobStore(tmp_path / "t"), agent, tmp_path / "out")

    play(source, story)
