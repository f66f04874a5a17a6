"""The other end of the network benchmark, a process of its own: the same services over a direct link and over raw TLS.

Run as `python -m tests.bench.network_end FOLDER`, with the certificate in FOLDER.
"""

from __future__ import annotations

import asyncio
import datetime
import json
import ssl
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from lading_net.direct import DirectTransport
from lading_net.heap import calm_collector
from lading_net.messages import MessageStream
from lading_net.ports import Stream
from lading_protocol.keys import PrivateKey

from .processes import say_ready


class Token(msgspec.Struct, frozen=True, array_like=True, tag="t"):
    index: int
    token: int
    text: str


decoder = msgspec.msgpack.Decoder(Token)


class TlsServer(asyncio.Protocol):
    """Counts what comes; what ends in ? is answered with the count and the CPU time so far; echoes after an E."""

    def __init__(self) -> None:
        self.count, self.mode = 0, b""
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self.mode == b"":
            self.mode, data = data[:1], data[1:]
        if self.mode == b"E":
            self.transport.write(data)
            return
        self.count += len(data)
        if data.endswith(b"?"):
            self.transport.write(json.dumps([self.count, time.process_time()]).encode())


async def serve(folder: str) -> None:
    async def sink(stream: Stream) -> None:
        count = 0
        while data := await stream.read():
            count += len(data)
        stream.write(json.dumps([count, time.process_time()]).encode())

    async def messages(stream: Stream) -> None:
        arriving, count = MessageStream(stream, decoder), 0
        while (message := await arriving.recv()) is not None:
            count += len(message.text)
        stream.write(json.dumps([count, time.process_time()]).encode())

    async def echo(stream: Stream) -> None:
        while data := await stream.read():
            stream.write(data)
            await stream.drain()

    transport = DirectTransport(PrivateKey(b"s" * 32))
    transport.handle("/sink/1", sink)
    transport.handle("/messages/1", messages)
    transport.handle("/echo/1", echo)
    endpoint = await transport.listen("/ip4/127.0.0.1/tcp/0")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{folder}/cert.pem", f"{folder}/key.pem")
    server = await asyncio.get_running_loop().create_server(TlsServer, "127.0.0.1", 0, ssl=context)
    calm_collector()
    say_ready({"endpoint": endpoint, "port": server.sockets[0].getsockname()[1]})
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    server.close()
    await transport.close()


def write_certificate(folder: str) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bench")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    Path(folder, "cert.pem").write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    Path(folder, "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


if __name__ == "__main__":
    run = asyncio.run if "--asyncio" in sys.argv else uvloop.run
    run(serve(sys.argv[1]))
