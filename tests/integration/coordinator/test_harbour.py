"""Links that a worker borrows from the desk, over a real unix socket: streams both ways, heartbeats, what is lost."""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from factories import key
from lading_coordinator.metrics import Metrics, merged
from lading_coordinator.whydesk import together
from lading_coordinator.workers.borrowed import BorrowedTransport
from lading_coordinator.workers.harbour import Harbour
from lading_coordinator.workers.place import Place, Role, hash_of
from lading_net.errors import DialFailed, LinkClosed, NetError
from lading_net.memory import MemoryNetwork
from lading_net.messages import MessageStream
from lading_net.ports import Link, Stream
from lading_protocol import VERSION
from lading_protocol.ids import Address
from lading_protocol.losses import Account, Reason, Why
from lading_protocol.messages import HEARTBEAT, Beat, Hello, ToIndex

HOST = key("host")
BIG = bytes(range(256)) * 8192


class Yard:
    def __init__(self, harbour: Harbour, worker: BorrowedTransport, link: Link, heard: list[object]) -> None:
        self.harbour, self.worker, self.link, self.heard = harbour, worker, link, heard
        self.beats: MessageStream[Beat]
        self.net: MemoryNetwork

    async def borrowed(self) -> Link:
        return await _first_link(self.worker)


async def _first_link(transport: BorrowedTransport) -> Link:
    came = asyncio.Event()
    transport.on_link(lambda _: came.set())
    if not transport.links():
        await came.wait()
    return transport.links()[0]


async def _echo(stream: Stream) -> None:
    while data := await stream.read():
        stream.write(data)
        await stream.drain()
    await stream.close()


@asynccontextmanager
async def yard() -> AsyncIterator[Yard]:
    """A host linked to a desk, and a worker of that desk. `heard` is what the worker heard of the host."""
    net, heard = MemoryNetwork(seed=1), []
    desk, host = net.transport(key("desk")), net.transport(HOST)
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        path = str(Path(folder) / "links.sock")
        harbour, worker = Harbour(desk, path), BorrowedTransport(path)

        async def listen(stream: Stream) -> None:
            messages: MessageStream[ToIndex] = MessageStream(stream, msgspec.msgpack.Decoder(ToIndex))
            while (message := await messages.recv()) is not None:
                heard.append(message)
            heard.append("gone")

        async def desk_listens(stream: Stream) -> None:
            while await stream.read():
                pass

        desk.handle(HEARTBEAT, harbour.shared(desk_listens))
        worker.handle(HEARTBEAT, listen)
        host.handle("/echo/1", _echo)
        await harbour.start()
        running = asyncio.create_task(worker.run())
        endpoint = await desk.listen("/ip4/10.0.0.1/tcp/1")
        link = await host.dial(endpoint, None)
        beats: MessageStream[Beat] = MessageStream(await link.open(HEARTBEAT), msgspec.msgpack.Decoder(Beat))
        beats.send(Hello(VERSION, ()))
        beats.send(Beat(3, 0))
        try:
            made = Yard(harbour, worker, link, heard)
            made.net = net
            made.beats = beats
            yield made
        finally:
            running.cancel()
            await worker.close()
            await harbour.close()
            await desk.close()
            await host.close()


def run(story: Callable[[Yard], Awaitable[None]]) -> None:
    async def main() -> None:
        async with yard() as made:
            await asyncio.wait_for(story(made), 30)

    asyncio.run(main())


def test_a_borrowed_stream_carries_everything_both_ways() -> None:
    async def story(made: Yard) -> None:
        link = await made.borrowed()
        assert link.peer == HOST.address
        assert await made.worker.dial("/ip4/10.0.0.9/tcp/1", HOST.address) is link
        stream = await link.open("/echo/1")

        async def say() -> None:
            for at in range(0, len(BIG), 30_000):
                stream.write(BIG[at : at + 30_000])
                await stream.drain()
            await stream.close()

        saying, back = asyncio.create_task(say()), bytearray()
        while data := await stream.read():
            back += data
        await saying
        assert back == BIG

    run(story)


def test_what_hosts_report_is_heard_and_so_is_their_end() -> None:
    async def story(made: Yard) -> None:
        link = await made.borrowed()
        made.beats.send(Beat(2, 0))
        await asyncio.sleep(0.1)
        assert made.heard[0] == Hello(VERSION, ())
        assert made.heard[-1] == Beat(2, 0)
        await made.link.close()
        await asyncio.wait_for(link.closed.wait(), 5)
        await asyncio.sleep(0)
        assert made.heard[-1] == "gone"
        with pytest.raises(LinkClosed):
            await link.open("/echo/1")
        with pytest.raises(DialFailed):
            await made.worker.dial("/ip4/10.0.0.9/tcp/1", HOST.address)

    run(story)


def test_a_stream_to_a_host_that_is_gone_says_so() -> None:
    async def story(made: Yard) -> None:
        link = await made.borrowed()
        stream = await link.open("/echo/1")
        stream.write(b"x")
        assert await stream.read() == b"x"
        late = type(link)(Address(key("stranger").address), link._path)  # type: ignore[call-arg,attr-defined]
        with pytest.raises(NetError, match="no link"):
            await (await late.open("/echo/1")).read()
        await made.link.close()
        with contextlib.suppress(NetError):
            assert await stream.read() == b""
        stream.reset()

    run(story)


def test_a_worker_that_begins_late_is_told_who_is_there() -> None:
    async def story(made: Yard) -> None:
        await made.borrowed()
        late = BorrowedTransport(made.worker._path)
        running = asyncio.create_task(late.run())
        assert (await _first_link(late)).peer == HOST.address
        running.cancel()
        await late.close()

    run(story)


def test_hosts_that_are_told_of_before_anybody_listens_are_heard_all_the_same() -> None:
    """A worker that is started again hears of hosts at once, while it still opens its door."""

    async def story(made: Yard) -> None:
        late, heard = BorrowedTransport(made.worker._path), []

        async def listen(stream: Stream) -> None:
            messages: MessageStream[ToIndex] = MessageStream(stream, msgspec.msgpack.Decoder(ToIndex))
            while (message := await messages.recv()) is not None:
                heard.append(message)

        running = asyncio.create_task(late.run())
        await _first_link(late)
        await asyncio.sleep(0.05)
        late.handle(HEARTBEAT, listen)
        made.beats.send(Beat(1, 0))
        await asyncio.sleep(0.1)
        assert heard[0] == Hello(VERSION, ())
        assert heard[-1] == Beat(1, 0)
        running.cancel()
        await late.close()

    run(story)


def test_the_desk_calls_a_peer_for_a_worker_and_says_why_it_cannot() -> None:
    async def story(made: Yard) -> None:
        await made.borrowed()
        other = key("far host")
        far = made.net.transport(other)
        far.handle("/echo/1", _echo)
        endpoint = await far.listen("/ip4/10.0.0.7/tcp/1")
        link = await made.worker.dial(endpoint, other.address)
        stream = await link.open("/echo/1")
        stream.write(b"hello")
        assert await stream.read() == b"hello"
        stream.reset()
        for place, who in (("/ip4/10.0.0.8/tcp/1", key("nobody")), (endpoint, key("somebody else"))):
            with pytest.raises(DialFailed, match=r"\w+"):
                await made.worker.dial(place, who.address)
        with pytest.raises(DialFailed):
            await made.worker.dial(endpoint, None)
        await far.close()

    run(story)


def test_workers_hear_what_other_coordinators_say_and_a_late_one_too() -> None:
    async def story(made: Yard) -> None:
        heard: list[bytes] = []
        await made.borrowed()
        made.worker.heard = heard.append
        for n in range(100):
            made.harbour.news(b"%d" % n)
        late = BorrowedTransport(made.worker._path)
        late_heard: list[bytes] = []
        late.heard = late_heard.append
        running = asyncio.create_task(late.run())
        await _first_link(late)
        for _ in range(100):
            if len(late_heard) == 64 and len(heard) == 100:
                break
            await asyncio.sleep(0.02)
        assert heard == [b"%d" % n for n in range(100)]
        assert late_heard == [b"%d" % n for n in range(36, 100)]
        running.cancel()
        await late.close()

    run(story)


def test_a_key_has_one_owner() -> None:
    places = [Place(Role.WORKER, number, 5) for number in range(5)]
    owners = [[place.number for place in places if place.owns(hash_of(f"key {n}"))] for n in range(500)]
    assert all(len(one) == 1 for one in owners)
    assert min(sum(one == [number] for one in owners) for number in range(5)) > 60
    assert Place().owns(hash_of("any"))
    assert not Place(Role.DESK, 0, 5).owns(hash_of("any"))


def test_figures_are_added_up() -> None:
    one, other = Metrics(), Metrics()
    for metrics, count in ((one, 2), (other, 3)):
        metrics.jobs.labels("chat", 'a "quoted" \\ code').inc(count)
        metrics.first_of("chat").observe(0.02)
        metrics.hosts.set(7)
        metrics.running.set(count)
    text = merged([one.text(), other.text()]).decode()
    assert 'lading_jobs_total{code="a \\"quoted\\" \\\\ code",operation="chat"} 5.0' in text
    assert "lading_hosts 7.0" in text
    assert "lading_jobs_running 5.0" in text
    assert 'lading_first_token_seconds_count{operation="chat"} 2.0' in text
    assert merged([text.encode()]).decode().splitlines() == text.splitlines()


def test_reasons_are_added_up() -> None:
    def why(jobs: int, won: int, *reasons: Reason) -> Why:
        return Why((Account(b"\x01" * 32, jobs, won, 60, "5", "6", reasons),))

    seen = [why(10, 4, Reason("price", 6, "dear")), why(5, 1, Reason("price", 1, "dearer"), Reason("busy", 3, "full"))]
    whole = together(seen)
    assert whole == why(15, 5, Reason("price", 7, "dearer"), Reason("busy", 3, "full"))
