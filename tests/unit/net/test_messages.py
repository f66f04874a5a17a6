"""Messages over a real stream, and what happens to those that are none."""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import pytest

from lading_net.clock import run_virtual
from lading_net.errors import BadMessage, MessageTooLarge, StreamReset
from lading_net.messages import MessageStream
from lading_net.ports import Stream
from unit.net.wire import Wire

MAX = 1 << 20


class Ask(msgspec.Struct, frozen=True, tag="ask"):
    text: str


class Blob(msgspec.Struct, frozen=True, tag="blob"):
    data: bytes


DECODER = msgspec.msgpack.Decoder(Ask | Blob)


def talk(handler: Callable[[Stream], Awaitable[None]], ask: Callable[[Stream], Awaitable[None]]) -> None:
    async def main() -> None:
        wire = Wire()
        wire.far_handlers["/talk"] = handler
        await ask(await wire.near.open("/talk"))
        await asyncio.sleep(1)
        await wire.near.close()
        await wire.far.close()

    run_virtual(main())


def raw(data: bytes) -> Callable[[Stream], Awaitable[None]]:
    async def handler(stream: Stream) -> None:
        stream.write(data)

    return handler


def test_messages_keep_their_order_and_their_edges() -> None:
    async def answer(stream: Stream) -> None:
        messages = MessageStream(stream, DECODER)
        while (message := await messages.recv()) is not None:
            messages.send(message)
            await messages.drain()

    async def ask(stream: Stream) -> None:
        messages = MessageStream(stream, DECODER)
        sent: list[Ask | Blob] = [Ask("a"), Blob(bytes(MAX - 100)), *(Ask(str(number)) for number in range(1000))]
        for message in sent:
            messages.send(message)
        await messages.close()
        got = []
        while (message := await messages.recv()) is not None:  # type: ignore[assignment]
            got.append(message)
        assert got == sent

    talk(answer, ask)


def test_a_message_over_the_limit_is_not_sent() -> None:
    async def ask(stream: Stream) -> None:
        messages = MessageStream(stream, DECODER)
        with pytest.raises(MessageTooLarge):
            messages.send(Blob(bytes(MAX)))
        assert await messages.recv() == Ask("nothing came")

    async def answer(stream: Stream) -> None:
        MessageStream(stream, DECODER).send(Ask("nothing came"))

    talk(answer, ask)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        ((MAX + 1).to_bytes(4, "big"), MessageTooLarge),
        (b"\xff\xff\xff\xff", MessageTooLarge),
        (b"\0\0\0\0", BadMessage),
        (b"\0\0\0\x01\xc1", BadMessage),
        (b"\0\0\0\x02\x81\xa4", BadMessage),
        (msgspec.msgpack.encode({"type": "other"}), MessageTooLarge),
        (b"\0\0\0\x12" + b"\x82\xa4type\xa3ask\xa4text\xa2\xff\xfe", BadMessage),
    ],
)
def test_what_is_no_message_resets_the_stream(data: bytes, error: type[Exception]) -> None:
    async def ask(stream: Stream) -> None:
        with pytest.raises(error):
            await MessageStream(stream, DECODER).recv()
        with pytest.raises(StreamReset):
            stream.write(b"x")

    talk(raw(data), ask)


def test_a_message_of_an_unknown_kind_resets_the_stream() -> None:
    async def answer(stream: Stream) -> None:
        MessageStream(stream, DECODER).send({"type": "other"})

    async def ask(stream: Stream) -> None:
        with pytest.raises(BadMessage, match="not understood"):
            await MessageStream(stream, DECODER).recv()

    talk(answer, ask)


@pytest.mark.parametrize("data", [b"\0", b"\0\0\0\x05abc"])
def test_an_end_in_mid_message_is_told(data: bytes) -> None:
    async def ask(stream: Stream) -> None:
        with pytest.raises(BadMessage, match="cut off"):
            await MessageStream(stream, DECODER).recv()

    talk(raw(data), ask)
