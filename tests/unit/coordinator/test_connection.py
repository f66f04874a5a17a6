"""The HTTP connection by itself: keep-alive, pipelining, chunked bodies, limits, timeouts, and hostile bytes."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lading_coordinator.errors import ApiError
from lading_coordinator.gateway.connection import Connection, Limits, Request
from lading_coordinator.gateway.reply import Reply
from lading_net.clock import run_virtual
from unit.coordinator.world import Wire, encode

LIMITS = Limits(body=1000, head=2000)


async def echo(request: Request, reply: Reply) -> None:
    """Answers with the body; /slow takes a second, /stream streams three pieces, /boom fails."""
    match request.path:
        case "/slow":
            await asyncio.sleep(1)
        case "/boom":
            raise RuntimeError("boom")
        case "/refuse":
            raise ApiError(418, "teapot", "No.")
        case "/stream":
            reply.start(200, b"text/plain")
            for piece in (b"one ", b"two ", b"three"):
                reply.write(piece)
                await asyncio.sleep(0.1)
            reply.end()
            return
    reply.send(200, request.path.encode() + b":" + request.body)


def wired(story: Callable[[Wire], Awaitable[None]], limits: Limits = LIMITS) -> None:
    async def main() -> None:
        wire = Wire(Connection(echo, limits, set()))
        await story(wire)
        wire.hang_up()
        await asyncio.sleep(0)

    run_virtual(main())


def test_one_connection_serves_many_requests_in_order() -> None:
    async def story(wire: Wire) -> None:
        wire.send(encode("POST", "/slow", b"1") + encode("POST", "/a", b"2"))
        wire.send(encode("POST", "/b", b"3"))
        assert [(await wire.answer()).body for _ in range(3)] == [b"/slow:1", b"/a:2", b"/b:3"]
        assert not wire.closed

    wired(story)


def test_connection_close_and_http_1_0() -> None:
    async def story(wire: Wire) -> None:
        wire.send(b"GET /x HTTP/1.0\r\n\r\n")
        assert (await wire.answer()).headers["connection"] == "close"
        await asyncio.sleep(0)
        assert wire.closed

    wired(story)


def test_a_stream_over_http_1_0_ends_with_the_connection() -> None:
    async def story(wire: Wire) -> None:
        wire.send(b"GET /stream HTTP/1.0\r\n\r\n")
        await asyncio.sleep(1)
        assert wire.closed
        assert wire.read().endswith(b"\r\n\r\none two three")

    wired(story)


def test_chunked_bodies_and_streams() -> None:
    async def story(wire: Wire) -> None:
        wire.send(b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
        assert (await wire.answer()).body == b"/a:abcde"
        wire.send(encode("GET", "/stream"))
        assert (await wire.answer()).body == b"one two three"

    wired(story)


@pytest.mark.parametrize("size", range(1, 40, 7))
def test_bytes_may_come_in_any_pieces(size: int) -> None:
    async def story(wire: Wire) -> None:
        data = encode("POST", "/a", b"x" * 50)
        for at in range(0, len(data), size):
            wire.send(data[at : at + size])
        assert (await wire.answer()).body == b"/a:" + b"x" * 50

    wired(story)


def test_expect_continue() -> None:
    async def story(wire: Wire) -> None:
        wire.send(b"POST /a HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert await wire.until(b"100 Continue")
        wire.send(b"ab")
        assert (await wire.answer()).body == b"/a:ab"

    wired(story)


BAD = [
    (b"NONSENSE\r\n\r\n", 400),
    (b"GET / HTTP/9.9\r\n\r\n", 400),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01", 400),
    (b"GET /" + b"a" * 3000 + b" HTTP/1.1\r\n\r\n", 431),
    (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 500 + b"\r\n", 431),
    (b"POST / HTTP/1.1\r\nContent-Length: 1001\r\n\r\n", 413),
    (b"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n", 400),
    (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
    (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"ff\r\n" + b"a" * 255 + b"\r\n", None),
    (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"3e8\r\n" + b"a" * 1000 + b"\r\n1\r\na\r\n", 413),
    (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    (b"GET / HTTP/1.1\r\nAuthorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\n" + b"a" * 70_000, 431),
]


@pytest.mark.parametrize(("data", "status"), BAD)
def test_what_breaks_the_rules_gets_an_answer_and_the_door(data: bytes, status: int | None) -> None:
    async def story(wire: Wire) -> None:
        wire.send(data)
        if status is None:
            await asyncio.sleep(0.1)
            assert not wire.closed
            return
        answer = await wire.answer()
        assert answer.status == status
        assert answer.error["message"]
        assert wire.eof
        wire.send(b"more of the same")
        await asyncio.sleep(2)
        assert wire.closed

    wired(story)


def test_an_upgrade_is_not_taken_but_the_request_is_answered() -> None:
    async def story(wire: Wire) -> None:
        wire.send(b"GET /a HTTP/1.1\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n")
        answer = await wire.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")

    wired(story)


def test_errors_keep_the_connection() -> None:
    async def story(wire: Wire) -> None:
        wire.send(encode("GET", "/refuse"))
        answer = await wire.answer()
        assert (answer.status, answer.error["code"]) == (418, "teapot")
        wire.send(encode("GET", "/a"))
        assert (await wire.answer()).status == 200

    wired(story)


def test_a_bug_is_a_500_without_details(caplog: pytest.LogCaptureFixture) -> None:
    async def story(wire: Wire) -> None:
        wire.send(encode("GET", "/boom"))
        answer = await wire.answer()
        assert (answer.status, answer.error["code"]) == (500, "internal_error")
        assert "boom" not in answer.body.decode()

    wired(story)
    assert "boom" in caplog.text


def test_late_clients_are_let_go() -> None:
    async def main() -> None:
        peers: set[Connection] = set()
        limits = Limits(head_seconds=10, body_seconds=20, idle_seconds=30)
        loop = asyncio.get_running_loop()
        idle, head, body, busy = (Wire(Connection(echo, limits, peers)) for _ in range(4))
        head.send(b"GET / HTTP/1.1\r\nHo")
        body.send(b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nabc")
        busy.send(encode("GET", "/slow"))
        lates = []
        for _ in range(40):
            await asyncio.sleep(1)
            for connection in [one for one in peers if one.late(loop.time())]:
                lates.append(round(loop.time()))
                connection.expire()
        assert lates == [11, 21, 31, 32]
        assert (await head.answer()).status == 408
        assert (await body.answer()).status == 408
        assert (await busy.answer()).status == 200
        assert idle.closed

    run_virtual(main())


def test_a_flood_of_pipelined_requests_holds_the_reader_back() -> None:
    async def story(wire: Wire) -> None:
        paused = []
        wire.pause_reading = lambda: paused.append(True)  # type: ignore[method-assign]
        wire.send(encode("GET", "/slow") * 40)
        assert paused
        for _ in range(40):
            assert (await wire.answer()).status == 200

    wired(story)


@settings(max_examples=60)
@given(st.binary(max_size=300), st.booleans())
def test_no_bytes_break_it(data: bytes, after_head: bool) -> None:
    async def story(wire: Wire) -> None:
        wire.send((b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" if after_head else b"") + data)
        await asyncio.sleep(5)

    wired(story)
