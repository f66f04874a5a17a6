"""Messages on a stream: a 4-byte length and msgpack, either way, at most 1 MiB each.

Knows how messages are cut and packed; what they mean is the reader's affair. What is no message resets the stream.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final, Generic, TypeVar

import msgspec

from lading_net.errors import BadMessage, MessageTooLarge
from lading_net.ports import Stream
from lading_protocol.errors import BadMessage as BadFrame
from lading_protocol.framing import Frames
from lading_protocol.messages import MAX_FRAME

T = TypeVar("T")
_encode: Final = msgspec.msgpack.Encoder().encode


class MessageStream(Generic[T]):
    """Speaks to a peer over `stream`, which stays the caller's to close. `reader` names what the peer may say, or is
    given what came together: it adds the messages of that, and returns "" or why the rest is none.
    """

    __slots__ = ("_frames", "_hear", "_ready", "_refused", "ended", "stream")

    def __init__(
        self, stream: Stream, reader: msgspec.msgpack.Decoder[T] | Callable[[list[bytes], deque[T]], str]
    ) -> None:
        self.stream = stream
        self._hear: Callable[[list[bytes], deque[T]], str] = (
            partial(_each, reader.decode) if isinstance(reader, msgspec.msgpack.Decoder) else reader
        )
        self._frames = Frames()
        self._ready: deque[T] = deque()
        self._refused = ""  # why what came after those is no message
        self.ended = False  # the peer has closed its side, and all was read

    def send(self, message: object) -> None:
        """Queues a message. Raises MessageTooLarge before anything is written, and as Stream.write does."""
        body = _encode(message)
        if len(body) > MAX_FRAME:
            raise MessageTooLarge(f"The message has {len(body)} bytes; the limit is {MAX_FRAME}.")
        self.stream.write(len(body).to_bytes(4, "big") + body)

    async def drain(self) -> None:
        await self.stream.drain()

    @property
    def waiting(self) -> bool:
        """Whether recv() has a message at hand and will not wait."""
        return bool(self._ready)

    async def recv(self) -> T | None:
        """The next message, None once the peer has closed its side.

        Raises as Stream.read does, MessageTooLarge, and BadMessage for what the decoder refuses or a cut message.
        """
        while not self._ready:
            if self._refused:
                self._refuse()
            if self.ended:
                return None
            self._feed(await self.stream.read())
        return self._ready.popleft()

    def poll(self) -> T | None:
        """As recv(), but never waits: None also while there is nothing, and `ended` says which it is."""
        while not self._ready:
            if self._refused:
                self._refuse()
            if self.ended or (data := self.stream.poll()) is None:
                return None
            self._feed(data)
        return self._ready.popleft()

    def _feed(self, data: bytes) -> None:
        if not data:
            if self._frames.pending:
                raise BadMessage("The peer's last message is cut off.")
            self.ended = True
            return
        try:
            arrived = self._frames.feed(data)
        except BadFrame as error:
            self.stream.reset()
            raise MessageTooLarge(error.message) from None
        if why := self._hear(arrived, self._ready):
            self._refused = f"The peer's message is not understood: {why}."

    def _refuse(self) -> None:
        self.stream.reset()
        raise BadMessage(self._refused)

    async def close(self) -> None:
        await self.stream.close()

    def reset(self) -> None:
        self.stream.reset()


def _each(decode: Callable[[bytes], T], payloads: list[bytes], into: deque[T]) -> str:
    try:
        for one in payloads:
            into.append(decode(one))  # those before a bad one count
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return str(error)
    return ""
