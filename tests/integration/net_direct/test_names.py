"""Endpoints behind names, asked of a name server of our own: followed, bounded, and one that fails spoils no other."""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Mapping

import pytest

from lading_net.errors import BadEndpoint
from lading_net.names import MOST, resolve
from lading_net.peer import PeerId
from lading_protocol.keys import PrivateKey

PEER = str(PeerId.from_public_key(PrivateKey(b"1" * 32).public_key))
PLAIN = f"/ip4/203.0.113.1/tcp/4601/p2p/{PEER}"
OTHER = f"/dns4/other.example/tcp/4601/p2p/{PEER}"


class NameServer(asyncio.DatagramProtocol):
    """Answers questions for TXT records (RFC 1035) from a table; of names it does not know it says so."""

    def __init__(self, table: Mapping[str, list[str]]) -> None:
        self._table = table

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        labels, at = [], 12
        while size := data[at]:
            labels.append(data[at + 1 : at + 1 + size].decode())
            at += 1 + size
        question = data[12 : at + 5]
        texts = self._table.get(".".join(labels))
        head = struct.pack(
            ">HHHHHH", *struct.unpack(">H", data[:2]), 0x8180 if texts else 0x8183, 1, len(texts or ()), 0, 0
        )
        records = b""
        for text in texts or ():
            parts = [text[i : i + 255].encode() for i in range(0, len(text), 255)]
            body = b"".join(bytes([len(part)]) + part for part in parts)
            records += b"\xc0\x0c" + struct.pack(">HHIH", 16, 1, 60, len(body)) + body
        self._transport.sendto(head + question + records, addr)  # type: ignore[attr-defined]


def found(table: Mapping[str, list[str]], *endpoints: str) -> tuple[str, ...]:
    async def main() -> tuple[str, ...]:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: NameServer(table), local_addr=("127.0.0.1", 0))
        try:
            return await resolve(endpoints, ("127.0.0.1",), transport.get_extra_info("sockname")[1])
        finally:
            transport.close()

    return asyncio.run(main())


def test_names_become_addresses_and_others_stay() -> None:
    table = {
        "_dnsaddr.net.example": [f"dnsaddr={PLAIN}", "v=spf1 -all", "dnsaddr=/dnsaddr/more.example"],
        "_dnsaddr.more.example": [f"dnsaddr={OTHER}", "dnsaddr=/ip4/203.0.113.1/udp/4601/quic-v1", f"dnsaddr={PLAIN}"],
    }
    assert found(table, "/ip4/10.0.0.1/tcp/1", "/dnsaddr/net.example") == ("/ip4/10.0.0.1/tcp/1", PLAIN, OTHER)


def test_one_name_that_fails_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    table = {"_dnsaddr.net.example": [f"dnsaddr={PLAIN}"], "_dnsaddr.empty.example": ["nothing"]}
    with caplog.at_level(logging.WARNING):
        assert found(table, "/dnsaddr/gone.example", "/dnsaddr/empty.example", "/dnsaddr/net.example") == (PLAIN,)
    assert "gone.example" in caplog.text
    assert "empty.example" in caplog.text


def test_names_that_name_each_other_end() -> None:
    table = {
        "_dnsaddr.a.example": ["dnsaddr=/dnsaddr/b.example"] * 3,
        "_dnsaddr.b.example": ["dnsaddr=/dnsaddr/a.example"] * 3,
    }
    assert found(table, "/dnsaddr/a.example") == ()


def test_a_name_with_very_many_addresses_is_cut() -> None:
    many = [f"dnsaddr=/ip4/10.0.0.{n}/tcp/1" for n in range(60)]
    assert len(found({"_dnsaddr.a.example": many}, "/dnsaddr/a.example")) == MOST


def test_what_is_neither_is_refused() -> None:
    with pytest.raises(BadEndpoint):
        found({}, "nonsense")
