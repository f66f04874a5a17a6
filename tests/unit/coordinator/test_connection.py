"""The HTTP connection by itself: keep-alive, pipelining, chunked bodies, limits, timeouts, and hostile bytes."""

import asyncio
import gc
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lading_coordinator.errors import ApiError
from lading_coordinator.gateway.connection import App, Connection, Limits, Request
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


def wired(story: Callable[[Wire], Awaitable[None]], limits: Limits = LIMITS, app: App = echo) -> None:
    async def main() -> None:
        wire = Wire(Connection(app, limits, set()))
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
        assert lates == [12, 22, 32, 33]  # counted from when the server first looked
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


class Callbacks:
    """Answers at once, or from a timer of its own; no task is made for any of it."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.gone: list[str] = []

    def __call__(self, request: Request, reply: Reply) -> None:
        self.asked.append(request.path)
        if request.path == "/boom":
            raise RuntimeError("boom")
        if request.path == "/later":
            reply.gone = lambda: self.gone.append(request.path)
            asyncio.get_running_loop().call_later(1, reply.send, 200, b"late")
        else:
            reply.send(200, request.path.encode())


def test_answers_without_a_task_come_in_order_and_however_many_wait() -> None:
    async def story(wire: Wire) -> None:
        wire.send(encode("GET", "/a") + encode("GET", "/later") + encode("GET", "/b") * 3000 + encode("GET", "/boom"))
        assert (await wire.answer()).body == b"/a"
        assert (await wire.answer()).body == b"late"
        for _ in range(3000):
            assert (await wire.answer()).body == b"/b"
        assert (await wire.answer()).status == 500

    wired(story, app=Callbacks())


def test_who_answers_without_a_task_hears_that_the_client_is_gone() -> None:
    app = Callbacks()

    async def story(wire: Wire) -> None:
        wire.send(encode("GET", "/later") + encode("GET", "/b"))
        wire.hang_up()
        assert app.gone == ["/later"]
        await asyncio.sleep(2)
        assert wire.read() == b""
        assert app.asked == ["/later"]

    wired(story, app=app)


def test_a_client_that_goes_in_the_turn_in_which_it_asked_is_not_answered() -> None:
    async def story(wire: Wire) -> None:
        wire.send(encode("POST", "/a", b"1"))
        wire.hang_up()
        await asyncio.sleep(1)
        assert wire.read() == b""

    wired(story)


def test_an_idle_connection_holds_nothing_of_what_it_was_asked() -> None:
    async def story(wire: Wire) -> None:
        for path in ("/a", "/refuse", "/stream", "/a"):
            wire.send(encode("POST", path, b"1"))
            await wire.answer()
        await asyncio.sleep(1)
        gc.collect()
        assert [one for one in gc.get_objects() if type(one) in (Request, Reply)] == []

    gc.collect()
    wired(story)


def test_an_answer_that_is_cancelled_from_elsewhere_ends_the_connection() -> None:
    async def gone(request: Request, reply: Reply) -> None:
        raise asyncio.CancelledError

    async def story(wire: Wire) -> None:
        wire.send(encode("GET", "/a"))
        await asyncio.sleep(1)
        assert wire.closed

    wired(story, app=gone)


def test_what_stands_behind_the_last_request_is_not_asked() -> None:
    app = Callbacks()

    async def story(wire: Wire) -> None:
        wire.send(encode("GET", "/a", connection="close") + encode("GET", "/b"))
        assert (await wire.answer()).headers["connection"] == "close"
        await asyncio.sleep(1)
        assert wire.closed
        assert app.asked == ["/a"]

    wired(story, app=app)


def test_a_server_that_stops_waits_for_answers_without_a_task() -> None:
    async def main() -> None:
        connection = Connection(Callbacks(), LIMITS, set())
        wire = Wire(connection)
        wire.send(encode("GET", "/later"))
        running = connection.stop()
        assert running is not None
        await asyncio.wait((running,), timeout=5)
        assert asyncio.get_running_loop().time() == 1
        assert (await wire.answer()).body == b"late"
        await asyncio.sleep(0)
        assert wire.closed

    run_virtual(main())


def test_what_is_added_waits_for_what_leaves_and_leaves_with_it_in_one_write() -> None:
    def app(request: Request, reply: Reply) -> None:
        reply.start(200, b"text/plain")
        reply.add(b"one ")
        reply.write(b"two ")
        reply.flush()
        reply.add(b"three ")
        asyncio.get_running_loop().call_later(1, reply.end, b"four")

    async def story(wire: Wire) -> None:
        wire.send(encode("GET", "/a"))
        assert wire.read().endswith(b"\r\n\r\n8\r\none two \r\n")
        await asyncio.sleep(2)
        assert wire.read() == b"a\r\nthree four\r\n0\r\n\r\n"
        assert wire.writes == 2

    wired(story, app=app)


def test_what_is_added_leaves_before_it_is_much() -> None:
    def app(request: Request, reply: Reply) -> None:
        reply.start(200, b"text/plain")
        for _ in range(1000):
            reply.add(bytes(1000))
        asyncio.get_running_loop().call_later(1, reply.end)

    async def story(wire: Wire) -> None:
        wire.send(encode("GET", "/a"))
        first = wire.read()
        assert 950_000 < first.count(b"\0") < 1_000_000
        await asyncio.sleep(2)
        assert (first + wire.read()).count(b"\0") == 1_000_000

    wired(story, app=app)


def test_an_answer_that_fails_keeps_nothing_back_that_was_added() -> None:
    def app(request: Request, reply: Reply) -> None:
        reply.start(200, b"text/plain")
        reply.add(b"one ")
        raise RuntimeError("boom")

    async def story(wire: Wire) -> None:
        wire.send(encode("GET", "/a"))
        assert wire.read().endswith(b"\r\n\r\n4\r\none \r\n")
        await asyncio.sleep(0)
        assert wire.closed

    wired(story, app=app)


@settings(max_examples=60)
@given(st.binary(max_size=300), st.booleans())
def test_no_bytes_break_it(data: bytes, after_head: bool) -> None:
    async def story(wire: Wire) -> None:
        wire.send((b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" if after_head else b"") + data)
        await asyncio.sleep(5)

    wired(story)
