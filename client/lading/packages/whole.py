"""Blobs that are small and proved only when they are whole: manifests, and the chunk lists of large files.

Peers are asked one after the other, the next one as soon as a peer says no or takes its time.
"""

import asyncio
import hashlib
from collections.abc import Callable, Sequence

from lading.errors import BadPackage, NoSource
from lading.packages.wire import Parts
from lading_net.errors import NetError
from lading_net.ports import Link
from lading_protocol.ids import short
from lading_protocol.messages import BLOB, BLOB_PART, NoBlob

Links = Callable[[], Sequence[Link]]
_NEXT_SECONDS = 1.0  # a peer's head start before another is asked as well
_PEER_SECONDS = 60.0


async def fetch_whole(links: Links, blob: bytes, most: int) -> bytes:
    """The blob, of at most `most` bytes. Raises NoSource."""
    waiting, reasons = list(links()), list[str]()
    running: set[asyncio.Task[bytes]] = set()
    try:
        while waiting or running:
            if waiting:
                running.add(asyncio.create_task(_ask(waiting.pop(0), blob, most)))
            done, running = await asyncio.wait(
                running, timeout=_NEXT_SECONDS if waiting else None, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                if (error := task.exception()) is None:
                    return task.result()
                reasons.append(str(error))
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    raise NoSource(f"{short(blob)} cannot be had ({'; '.join(reasons) or 'no peer is linked yet'}).")


async def _ask(link: Link, blob: bytes, most: int) -> bytes:
    """Raises BadPackage, whose text begins with the peer."""
    who = short(link.peer)
    try:
        async with asyncio.timeout(_PEER_SECONDS):
            return await _read(link, blob, most)
    except TimeoutError:
        raise BadPackage(f"{who}: it did not answer in time") from None
    except NetError as error:
        raise BadPackage(f"{who}: {error.message.rstrip('.')}") from None
    except BadPackage as error:
        raise BadPackage(f"{who}: {error.message}") from None


async def _read(link: Link, blob: bytes, most: int) -> bytes:
    stream = await link.open(BLOB)
    try:
        parts, data = Parts(stream), bytearray()
        while True:
            parts.ask(blob, len(data), BLOB_PART)
            part = await parts.next()
            if isinstance(part, NoBlob):
                raise BadPackage("it does not hold it")
            for piece in part.pieces:
                data += piece
            if part.size > most or len(data) > part.size:
                raise BadPackage(f"it says that it has {part.size:,} bytes, over the limit of {most:,}")
            if len(data) == part.size or not part.length:
                break
    finally:
        await stream.close()
        stream.reset()
    if hashlib.sha256(data).digest() != blob:
        raise BadPackage("what it gave has another digest")
    return bytes(data)
