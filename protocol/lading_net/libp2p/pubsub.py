"""py-libp2p's gossipsub, tuned to cost little when idle and to survive whatever peers send."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Iterable

import trio
from libp2p.abc import IHost, INetStream
from libp2p.peer.id import ID
from libp2p.pubsub.gossipsub import PROTOCOL_ID_V11, GossipSub
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import Pubsub

from lading_net.core.quotas import Quotas, Rate
from lading_net.subscription import MAX_GOSSIP_BYTES

HEARTBEAT_SECONDS = 5
RESET_SECONDS = 1.0
QUEUE_MARK = 16
PATIENCE_SECONDS = 0.05
"""How long one message of ours waits for a neighbour that does not keep up."""

MESSAGES_PER_SECOND = 500
"""Per neighbour, before its messages are dropped: a neighbour forwards what many hosts publish."""

BYTES = Rate(burst=8 * 1024 * 1024, second=512 * 1024)
"""Per neighbour, the same way."""

NEIGHBOURS = 1024
"""Of so many the rates are remembered; there are fewer connections than that."""

MAX_RPC_BYTES = 4 * MAX_GOSSIP_BYTES

Handler = Callable[[INetStream], Awaitable[None]]

log = logging.getLogger(__name__)


class SturdyPubsub(Pubsub):
    """The library's pubsub, with what arrives handed out at once, and no message able to end the service."""

    def __init__(self, host: IHost, router: GossipSub, received: Callable[[str, bytes], None]) -> None:
        super().__init__(host, router, max_inbound_rpc_size=MAX_RPC_BYTES, seen_ttl=120)
        # Message numbers go on where they were after a restart within a second; the library counts from whole seconds.
        self.counter = time.time_ns()
        self._received = received
        self._messages: Quotas[ID] = Quotas(Rate(2 * MESSAGES_PER_SECOND, MESSAGES_PER_SECOND), NEIGHBOURS)
        self._bytes: Quotas[ID] = Quotas(BYTES, NEIGHBOURS)

    async def publish(self, topic_id: str | list[str], data: bytes) -> None:
        """Lets neighbours' queues (32 messages each) empty first, or a burst of ours would be lost on its way out."""
        with trio.move_on_after(PATIENCE_SECONDS):
            while any(len(queue) > QUEUE_MARK for queue in self.peer_queues.values()):  # noqa: ASYNC110
                await trio.sleep(0.001)
        await super().publish(topic_id, data)

    def notify_subscriptions(self, publish_message: rpc_pb2.Message) -> None:
        if publish_message.from_id == self.my_id.to_bytes():
            return
        for topic in publish_message.topicIDs:
            if topic in self.topic_ids:
                self._received(topic, publish_message.data)

    async def push_msg(self, msg_forwarder: ID, msg: rpc_pb2.Message) -> None:
        if len(msg.data) > MAX_GOSSIP_BYTES or not self._affordable(msg_forwarder, len(msg.data)):
            return
        try:
            await super().push_msg(msg_forwarder, msg)
        except Exception as error:
            log.debug("a message from %s was dropped", msg_forwarder, exc_info=error)

    async def stream_handler(self, stream: INetStream) -> None:
        await guarded(super().stream_handler)(stream)

    def _affordable(self, neighbour: ID, size: int) -> bool:
        """Asked before the signature is checked, which is what costs."""
        now = time.monotonic()
        return self._messages.take(neighbour, now) and self._bytes.take(neighbour, now, size)


def guarded(handler: Handler) -> Handler:
    """A stream handler from which no error escapes: the library ends the whole host for one that does."""

    async def handle(stream: INetStream) -> None:
        try:
            await handler(stream)
        except Exception as error:
            log.debug("a stream ended in an error", exc_info=error)
            with trio.move_on_after(RESET_SECONDS):
                await stream.reset()

    return handle


class QuietRouter(GossipSub):
    """The library's router without its notices of what need not be sent: each is as large as an offer."""

    async def _emit_idontwant_for_message(self, msg_id: bytes, topic_ids: Iterable[str]) -> None: ...


def make_router() -> GossipSub:
    return QuietRouter(
        protocols=[PROTOCOL_ID_V11],
        degree=6,
        degree_low=4,
        degree_high=8,
        heartbeat_interval=HEARTBEAT_SECONDS,
        gossip_window=3,
        gossip_history=5,
        do_px=True,
        prune_back_off=10,
        adaptive_gossip_enabled=False,
        # Many of our hosts share an address (a datacenter, a demo); who they are is proved by stake, not by address.
        eclipse_protection_enabled=False,
        max_messages_per_topic_per_second=float(MESSAGES_PER_SECOND),
    )
