"""Opens what this host committed to: the sketch of an attempt, to the peer that brought the job and nobody else.

Answers the opening stream. Which attempts are asked for is public randomness's affair (audits), what the numbers say
the auditor's.
"""

import asyncio
import logging

import msgspec

from lading_net.messages import MessageStream
from lading_net.ports import Stream
from lading_net.sketches import send_sketch
from lading_node.store import Ledger
from lading_protocol.ids import JobId, short_job
from lading_protocol.messages import GetOpening, Refuse

log = logging.getLogger(__name__)

ASK_SECONDS = 15.0
AT_ONCE = 4
_decoder = msgspec.msgpack.Decoder(GetOpening)


class Opener:
    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._places = asyncio.Semaphore(AT_ONCE)

    async def serve(self, stream: Stream) -> None:
        """The handler of the opening protocol: one question, one answer."""
        messages: MessageStream[GetOpening] = MessageStream(stream, _decoder)
        async with self._places:
            try:
                async with asyncio.timeout(ASK_SECONDS):
                    ask = await messages.recv()
            except TimeoutError:
                return
            if ask is None:
                return
            found = await self._ledger.sketch(JobId(ask.job), ask.attempt)
            if found is None or found.peer != stream.peer:
                why = "This host keeps no sketch of that attempt for you."
                messages.send(Refuse("no_opening", why))
                await messages.drain()
                return
            log.info("job %s, attempt %d: opened for an audit", short_job(ask.job), ask.attempt)
            await send_sketch(messages, found.data)
