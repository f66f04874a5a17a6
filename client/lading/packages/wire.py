"""Blob messages on a stream, without copies: asks go out as they come, parts come back as the pieces that arrived."""

from collections.abc import Callable

import msgspec

from lading_net.errors import BadMessage, LinkClosed
from lading_net.ports import Stream
from lading_protocol.blobwire import MOST_HEAD, read_head
from lading_protocol.framing import frame
from lading_protocol.messages import MAX_FRAME, BlobPart, FromStore, GetBlob, NoBlob

_from_store = msgspec.msgpack.Decoder(FromStore)
_encode = msgspec.msgpack.Encoder().encode


class Part:
    """`size` is the blob's; `pieces` are the data as they came."""

    __slots__ = ("length", "pieces", "size")

    def __init__(self, size: int, length: int, pieces: list[bytes | memoryview]) -> None:
        self.size, self.length, self.pieces = size, length, pieces


class Parts:
    """The asking end of a blob stream. `heard` is called whenever bytes come."""

    def __init__(self, stream: Stream, heard: Callable[[], None] = lambda: None) -> None:
        self.stream = stream
        self._heard = heard
        self._held = b""

    def ask(self, blob: bytes, offset: int, length: int) -> None:
        self.stream.write(frame(_encode(GetBlob(blob, offset, length))))

    async def next(self) -> Part | NoBlob:
        """The answer to the oldest ask. Raises as Stream.read does, LinkClosed at its end, BadMessage."""
        await self._hold(4)
        length = int.from_bytes(self._held[:4], "big")
        await self._hold(4 + min(length, MOST_HEAD))
        head = read_head(self._held[4 : 4 + min(length, MOST_HEAD)])
        if head is None:
            return await self._other(length)
        if length > MAX_FRAME or head.at + head.length != length:
            raise self._broken("a part has another length than its frame")
        pieces: list[bytes | memoryview] = []
        view = memoryview(self._held)[4 + head.at :]
        missing = head.length
        while missing > len(view):
            pieces.append(view)
            missing -= len(view)
            view = memoryview(await self._read())
        pieces.append(view[:missing])
        self._held = bytes(view[missing:])
        return Part(head.size, head.length, pieces)

    async def _other(self, length: int) -> Part | NoBlob:
        """A message that is no part, or one that another program packed in another way than ours."""
        if length > MAX_FRAME:
            raise self._broken(f"a message of {length} bytes")
        await self._hold(4 + length)
        body, self._held = self._held[4 : 4 + length], self._held[4 + length :]
        try:
            message: BlobPart | NoBlob = _from_store.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise self._broken(str(error)) from None
        if isinstance(message, BlobPart):
            return Part(message.size, len(message.data), [message.data])
        return message

    async def _hold(self, least: int) -> None:
        while len(self._held) < least:
            self._held += await self._read()

    async def _read(self) -> bytes:
        data = await self.stream.read()
        if not data:
            raise LinkClosed("The peer ended the stream before it had answered.")
        self._heard()
        return data

    def _broken(self, why: str) -> BadMessage:
        self.stream.reset()
        return BadMessage(f"The peer's answer is not understood: {why}.")
