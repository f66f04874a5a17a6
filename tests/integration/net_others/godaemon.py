"""go-libp2p's daemon p2pd as a Transport of ours: it dials, listens and seals, and hands its streams to us.

Its control socket speaks protobuf with lengths before it; what it may be asked is in its own p2pd.proto.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import cast

from lading_net.binaddr import decode_endpoint, encode_endpoint
from lading_net.core.rpc import Cutter
from lading_net.direct.relaywire import framed
from lading_net.errors import BadEndpoint, DialFailed, LinkClosed, StreamReset, UnknownProtocol
from lading_net.peer import Endpoint, PeerId
from lading_net.ports import Link, LinkCallback, StreamHandler
from lading_net.protobuf import decode_fields, decode_message, decode_number, encode_count, encode_field, encode_number
from lading_protocol.ids import Address
from lading_protocol.keys import PrivateKey

_IDENTIFY, _CONNECT, _OPEN, _HANDLER, _DHT, _PEERS, _PUBSUB = 0, 1, 2, 3, 4, 5, 8
_FIND_PEER, _FIND_PROVIDERS, _PROVIDE = 0, 2, 8
_PUBLISH, _SUBSCRIBE, _LIST = 2, 3, 1
_UNIX = 400
SECONDS = 15
HIGH_WATER = 256 * 1024


class GoStream(asyncio.Protocol):
    """One stream of the daemon's, on a socket of its own. Begins with a message of the daemon's: `told`."""

    def __init__(self, connected: Callable[[GoStream], None] | None = None) -> None:
        self.peer, self.protocol = Address(bytes(20)), ""
        self.told: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._connected = connected
        self._cutter = Cutter()
        self._arrived = bytearray()
        self._ended, self._cut = False, False
        self._changed = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._watcher: Callable[[], None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.pipe = cast(asyncio.Transport, transport)  # uvloop's are none of asyncio's by their class
        self.pipe.set_write_buffer_limits(HIGH_WATER)
        if self._connected is not None:
            self._connected(self)

    def data_received(self, data: bytes) -> None:
        self._arrived += data
        if not self.told.done():
            head = decode_number(bytes(self._arrived[:5]), 0)
            if head is None or len(self._arrived) < sum(head):
                return
            size, at = head
            self.told.set_result(bytes(self._arrived[at : at + size]))
            del self._arrived[: at + size]
        self._tell()

    def eof_received(self) -> bool:
        self._ended = True
        self._tell()
        return True  # our side stays open

    def connection_lost(self, error: Exception | None) -> None:
        self._cut = self._cut or error is not None or not self._ended
        if not self.told.done():
            self.told.set_exception(StreamReset("The daemon gave the stream up."))
        self._ended = True
        self._writable.set()
        self._tell()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
        if self._watcher is not None:
            self._watcher()

    async def read(self) -> bytes:
        while (data := self.poll()) is None:
            await self._changed.wait()
        return data

    def poll(self) -> bytes | None:
        if self._arrived:
            data = bytes(self._arrived)
            self._arrived.clear()
            return data
        if self._cut:
            raise StreamReset("The peer reset the stream.")
        return b"" if self._ended else None

    def watch(self, callback: Callable[[], None] | None) -> None:
        self._watcher = callback

    def write(self, data: bytes) -> None:
        if self.pipe.is_closing():
            raise StreamReset("The peer reset the stream.")
        self.pipe.write(data)

    async def drain(self) -> None:
        await self._writable.wait()

    async def close(self) -> None:
        if not self.pipe.is_closing():
            self.pipe.write_eof()

    def reset(self) -> None:
        self._cut = True
        self.pipe.abort()


class GoLink:
    """The daemon's connection to one peer."""

    def __init__(self, daemon: GoDaemon, peer_id: PeerId) -> None:
        self._daemon, self.peer_id, self.peer = daemon, peer_id, peer_id.address
        self.closed = asyncio.Event()

    async def open(self, protocol: str) -> GoStream:
        stream = await self._daemon.control()
        asked = encode_field(1, self.peer_id.raw) + encode_field(2, protocol.encode()) + encode_count(3, SECONDS)
        stream.write(framed(encode_count(1, _OPEN) + encode_field(3, asked)))
        try:
            self._daemon.check(await stream.told)
        except DialFailed as error:
            stream.reset()
            raise UnknownProtocol(error.message) from None
        stream.peer, stream.protocol = self.peer, protocol
        return stream

    async def close(self) -> None:
        self.closed.set()


class GoDaemon:
    """Implements ports.Transport, as far as a coordinator needs it. Made by `go_peer`."""

    def __init__(self, key: PrivateKey, folder: Path) -> None:
        self.peer_id = PeerId.from_public_key(key.public_key)
        self.address = self.peer_id.address
        self._folder = folder
        self._handlers: dict[str, StreamHandler] = {}
        self._links: dict[Address, GoLink] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._servers: list[asyncio.Server] = []
        self._streams: list[GoStream] = []

    # -- the port

    async def listen(self, endpoint: str) -> str:
        """Where it listens already; from now on it serves what `handle` was told of."""
        for protocol in self._handlers:
            await self.serve(protocol)
        told = decode_fields(decode_fields(await self.ask(encode_count(1, _IDENTIFY)))[4][0])
        assert told[1] == [self.peer_id.raw]
        return next(str(Endpoint(one.kind, one.host, one.port, self.peer_id)) for one in _endpoints(told[2]))

    async def dial(self, endpoint: str, expect: Address | None = None) -> GoLink:
        where = Endpoint.parse(endpoint)
        assert where.peer is not None
        place = encode_endpoint(Endpoint(where.kind, where.host, where.port, None, where.via))
        asked = encode_field(1, where.peer.raw) + encode_field(2, place) + encode_count(3, SECONDS)
        await self.ask(encode_count(1, _CONNECT) + encode_field(2, asked))
        return self._link(where.peer)

    def handle(self, protocol: str, handler: StreamHandler) -> None:
        self._handlers[protocol] = handler

    def on_link(self, callback: LinkCallback) -> None:
        raise NotImplementedError("the daemon does not tell of new connections")

    def links(self, peer: Address | None = None) -> list[Link]:
        return [one for one in self._links.values() if peer is None or one.peer == peer]

    async def close(self) -> None:
        for server in self._servers:
            server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for stream in self._streams:
            stream.reset()

    # -- what else it can

    async def serve(self, protocol: str) -> None:
        path = self._folder / f"s{len(self._servers)}"
        loop = asyncio.get_running_loop()
        self._servers.append(await loop.create_unix_server(lambda: GoStream(self._arrived), str(path), backlog=512))
        asked = encode_field(1, _unix(path)) + encode_field(2, protocol.encode()) + encode_count(3, 0)
        await self.ask(encode_count(1, _HANDLER) + encode_field(4, asked))

    async def peers(self) -> list[tuple[bytes, Endpoint]]:
        """Whom it is connected to, and by which address."""
        listed = decode_fields(await self.ask(encode_count(1, _PEERS))).get(6, [])
        told = [decode_fields(each) for each in listed]
        return [(one[1][0], place) for one in told for place in _endpoints(one[2])]

    async def find_peer(self, peer: PeerId) -> list[Endpoint]:
        """Where a peer is, by Kademlia."""
        answer = await self.ask(_dht(_FIND_PEER, encode_field(2, peer.raw)))
        found = decode_fields(decode_fields(decode_fields(answer)[5][0])[2][0])
        return _endpoints(found.get(2, []))

    async def provide(self, multihash: bytes) -> None:
        await self.ask(_dht(_PROVIDE, encode_field(3, _cid(multihash))))

    async def find_providers(self, multihash: bytes, count: int) -> list[tuple[bytes, list[Endpoint]]]:
        stream = await self.control()
        stream.write(framed(_dht(_FIND_PROVIDERS, encode_field(3, _cid(multihash)) + encode_count(6, count))))
        self.check(await stream.told)
        cutter, found = Cutter(), list[tuple[bytes, list[Endpoint]]]()
        async with asyncio.timeout(SECONDS):
            while data := await stream.read():
                for piece in cutter.feed(data):
                    fields, counts = decode_message(piece)
                    if counts[1] == 2:  # the end
                        stream.reset()
                        return found
                    one = decode_fields(fields[2][0])
                    found.append((one[1][0], _endpoints(one.get(2, []))))
        raise StreamReset("The daemon broke off.")

    async def publish(self, topic: str, data: bytes) -> None:
        await self.ask(_pubsub(_PUBLISH, encode_field(2, topic.encode()) + encode_field(3, data)))

    async def topic_peers(self, topic: str) -> list[bytes]:
        answer = decode_fields(await self.ask(_pubsub(_LIST, encode_field(2, topic.encode()))))
        return decode_fields(answer.get(7, [b""])[0]).get(2, [])

    async def subscribe(self, topic: str) -> AsyncIterator[bytes]:
        """Returns once it listens; then what others publish, and itself."""
        stream = await self.control()
        stream.write(framed(_pubsub(_SUBSCRIBE, encode_field(2, topic.encode()))))
        self.check(await stream.told)

        async def messages() -> AsyncIterator[bytes]:
            cutter = Cutter()
            while data := await stream.read():
                for piece in cutter.feed(data):
                    yield decode_fields(piece)[2][0]

        return messages()

    # -- inside

    async def control(self) -> GoStream:
        _, stream = await asyncio.get_running_loop().create_unix_connection(GoStream, str(self._folder / "control"))
        self._streams.append(stream)
        return stream

    async def ask(self, request: bytes) -> bytes:
        stream = await self.control()
        try:
            stream.write(framed(request))
            async with asyncio.timeout(SECONDS):
                return self.check(await stream.told)
        finally:
            stream.reset()

    def check(self, answer: bytes) -> bytes:
        fields, counts = decode_message(answer)
        if counts[1]:
            raise DialFailed(decode_fields(fields[2][0])[1][0].decode())
        return answer

    def _link(self, peer: PeerId) -> GoLink:
        return self._links.setdefault(peer.address, GoLink(self, peer))

    def _arrived(self, stream: GoStream) -> None:
        self._streams.append(stream)
        task = asyncio.get_running_loop().create_task(self._serve(stream))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, stream: GoStream) -> None:
        fields = decode_fields(await stream.told)
        peer = PeerId.from_raw(fields[1][0])
        self._link(peer)
        stream.peer, stream.protocol = peer.address, fields[3][0].decode()
        with contextlib.suppress(StreamReset, LinkClosed):
            await self._handlers[stream.protocol](stream)
        await stream.close()


@contextlib.asynccontextmanager
async def go_peer(program: Path, key: PrivateKey, *options: str) -> AsyncIterator[GoDaemon]:
    """Listens on loopback until the block ends."""
    folder = Path(tempfile.mkdtemp(prefix="p2pd"))
    (folder / "key").write_bytes(b"\x08\x02\x12\x20" + key.secret)
    words = ["-id", f"{folder}/key", "-listen", f"/unix{folder}/control", "-tls=0"]
    words += ["-hostAddrs", "/ip4/127.0.0.1/tcp/0", *options]
    pipe = asyncio.subprocess.PIPE
    running = await asyncio.create_subprocess_exec(str(program), *words, stdout=pipe, stderr=pipe)
    daemon = GoDaemon(key, folder)
    try:
        assert running.stdout is not None
        async with asyncio.timeout(20):
            while not (await running.stdout.readline()).startswith(b"Peer Addrs"):
                assert running.returncode is None
        yield daemon
    finally:
        await daemon.close()
        with contextlib.suppress(ProcessLookupError):
            running.kill()
        await running.communicate()
        shutil.rmtree(folder)


def _endpoints(packed: list[bytes]) -> list[Endpoint]:
    found = []
    for each in packed:
        with contextlib.suppress(BadEndpoint):
            found.append(decode_endpoint(each))
    return found


def _unix(path: Path) -> bytes:
    name = str(path).encode()
    return encode_number(_UNIX) + encode_number(len(name)) + name


def _cid(multihash: bytes) -> bytes:
    return b"\x01\x55" + multihash


def _dht(kind: int, rest: bytes) -> bytes:
    asked = encode_count(1, kind) + rest + encode_count(7, SECONDS)
    return encode_count(1, _DHT) + encode_field(5, asked)


def _pubsub(kind: int, rest: bytes) -> bytes:
    return encode_count(1, _PUBSUB) + encode_field(8, encode_count(1, kind) + rest)
