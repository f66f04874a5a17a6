"""The gateway's socket itself: TLS, and clients that write byte by byte, read nothing, or send what is too large."""

import asyncio
import datetime
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from lading_coordinator.errors import BadSettings
from lading_coordinator.gateway.connection import Limits, Request
from lading_coordinator.gateway.reply import Reply
from lading_coordinator.gateway.server import HttpServer
from lading_coordinator.gateway.tls import server_context

LIMITS = Limits(body=20 << 20)
PIECE = b"x" * 16_384
Client = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Story = Callable[[HttpServer, Callable[[], Awaitable[Client]]], Awaitable[None]]


class Shop:
    """Answers with the size of the body; /endless streams as fast as the client reads."""

    def __init__(self) -> None:
        self.written = 0

    async def __call__(self, request: Request, reply: Reply) -> None:
        if request.path != "/endless":
            reply.send(200, b"%d %d" % (len(request.body), request.secure))
            return
        reply.start(200, b"text/plain")
        while True:
            reply.write(PIECE)
            self.written += len(PIECE)
            await reply.drain()
            await asyncio.sleep(0)


def certificate(folder: Path) -> tuple[str, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now - datetime.timedelta(hours=1))
    builder = builder.not_valid_after(now + datetime.timedelta(hours=1))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    made = builder.sign(key, hashes.SHA256())
    cert, secret = folder / "cert.pem", folder / "key.pem"
    cert.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, plain)
    )
    return str(cert), str(secret)


def play(story: Story, shop: Shop, tls: tuple[str, str] | None = None) -> None:
    async def main() -> None:
        server = HttpServer(shop, LIMITS)
        host, port = await server.listen("127.0.0.1", 0, server_context(*tls) if tls else None)
        trust = ssl.create_default_context(cafile=tls[0]) if tls else None
        made: list[asyncio.StreamWriter] = []

        async def connect() -> Client:
            name = "localhost" if trust else None
            reader, writer = await asyncio.open_connection(host, port, ssl=trust, server_hostname=name)
            made.append(writer)
            return reader, writer

        try:
            await asyncio.wait_for(story(server, connect), 30)
        finally:
            for writer in made:
                writer.transport.abort()
            await server.close(0)

    uvloop.run(main())


def post(body: bytes, path: str = "/size", size: int | None = None) -> bytes:
    length = len(body) if size is None else size
    return b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (path.encode(), length, body)


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    size = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    return int(head.split()[1]), await reader.readexactly(size)


async def asked(client: Client, data: bytes) -> tuple[int, bytes]:
    client[1].write(data)
    return await answer(client[0])


def test_tls_keeps_a_connection_and_says_that_it_is_secure(tmp_path: Path) -> None:
    async def story(server: HttpServer, connect: Callable[[], Awaitable[Client]]) -> None:
        client = await connect()
        for size in (0, 1, 5 << 20):
            assert await asked(client, post(b"a" * size)) == (200, b"%d 1" % size)
        assert client[1].get_extra_info("ssl_object").version() == "TLSv1.3"

    play(story, Shop(), certificate(tmp_path))


def test_what_is_too_large_is_refused_over_tls_too(tmp_path: Path) -> None:
    async def story(server: HttpServer, connect: Callable[[], Awaitable[Client]]) -> None:
        client = await connect()
        status, _ = await asked(client, post(b"a" * 1000, size=21 << 20))
        assert status == 413

    play(story, Shop(), certificate(tmp_path))


def test_a_prompt_of_16_megabytes_is_taken_whole_and_one_over_the_limit_is_not() -> None:
    async def story(server: HttpServer, connect: Callable[[], Awaitable[Client]]) -> None:
        assert await asked(await connect(), post(b"a" * (16 << 20))) == (200, b"%d 0" % (16 << 20))
        reader, writer = await connect()
        writer.write(b"POST /size HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(21):  # no length is named beforehand: it is counted as it comes
            writer.write(b"100000\r\n" + b"a" * (1 << 20) + b"\r\n")
        status, _ = await answer(reader)
        assert status == 413
        assert all(len(connection._body) == 0 for connection in server.connections)

    play(story, Shop())


def test_who_reads_nothing_or_writes_byte_by_byte_holds_up_nobody() -> None:
    """A client that leaves its answer unread makes the gateway hold a few buffers, and others are served meanwhile."""
    shop = Shop()

    async def story(server: HttpServer, connect: Callable[[], Awaitable[Client]]) -> None:
        _, writer = await connect()
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(post(b"", "/endless"))
        slow = await connect()
        other = await connect()
        for byte in post(b"abc"):
            slow[1].write(bytes([byte]))
            assert await asked(other, post(b"12345")) == (200, b"5 0")
        assert await answer(slow[0]) == (200, b"3 0")
        held = -1
        while held != shop.written:  # until the kernel takes no more, on either side
            held = shop.written
            for _ in range(50):
                assert await asked(other, post(b"12345")) == (200, b"5 0")
        assert held < 32 << 20

    play(story, shop)


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
def test_lines_may_end_either_way_or_are_refused_alike(ending: bytes) -> None:
    """A line that ends in a bare LF is read like any other, or refused: it never changes where a request ends."""

    async def story(server: HttpServer, connect: Callable[[], Awaitable[Client]]) -> None:
        client = await connect()
        lines = [b"POST /size HTTP/1.1", b"host: x", b"content-length: 3", b"", b""]
        status, body = await asked(client, ending.join(lines) + b"abc")
        assert (status, body) == (200, b"3 0") or (ending == b"\n" and status == 400)

    play(story, Shop())


def test_a_client_that_closes_its_half_is_gone_and_its_answer_is_cancelled() -> None:
    shop = Shop()

    async def story(server: HttpServer, connect: Callable[[], Awaitable[Client]]) -> None:
        reader, writer = await connect()
        writer.write(post(b"", "/endless"))
        await reader.readexactly(1000)
        writer.write_eof()
        while server.connections:
            await reader.read(1 << 16)
        held = shop.written
        await asyncio.sleep(0.01)
        assert shop.written == held

    play(story, shop)


@pytest.mark.parametrize("names", [("cert", ""), ("", "key"), ("none.pem", "none.pem")])
def test_half_a_certificate_is_no_certificate(names: tuple[str, str]) -> None:
    with pytest.raises(BadSettings, match=r"tls_cert|cannot be used"):
        server_context(*names)


def test_without_a_certificate_there_is_no_tls() -> None:
    assert server_context("", "") is None
