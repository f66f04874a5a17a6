"""A py-libp2p host with gossipsub and Kademlia in a trio thread: the other implementation that ours must understand."""

from __future__ import annotations

import queue
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import trio
from libp2p import new_host
from libp2p.crypto.secp256k1 import create_new_key_pair
from libp2p.kad_dht.kad_dht import DHTMode, KadDHT
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.pubsub.gossipsub import PROTOCOL_ID_V11, GossipSub
from libp2p.pubsub.pubsub import Pubsub
from libp2p.tools.anyio_service import background_trio_service
from multiaddr import Multiaddr  # type: ignore[import-untyped]


class PyGossip:
    """Listens to one topic; `heard` gets what others publish, `endpoint` is where it is."""

    def __init__(self, secret: bytes, topic: str) -> None:
        self._keys, self._topic = create_new_key_pair(secret), topic
        self.heard: queue.Queue[bytes] = queue.Queue()
        self.endpoint = ""
        self._ready = threading.Event()
        self._thread = threading.Thread(target=trio.run, args=(self._main,), daemon=True)
        self._thread.start()
        assert self._ready.wait(30)

    def dial(self, endpoint: str) -> None:
        self._call(self._host.connect, info_from_p2p_addr(Multiaddr(endpoint)))

    def publish(self, data: bytes) -> None:
        self._call(self._pubsub.publish, self._topic, data)

    def mesh(self) -> list[str]:
        """Base58 ids of those that it gossips with."""
        return [str(peer) for peer in self._router.mesh.get(self._topic, ())]

    def find(self, peer: str) -> list[str]:
        """Where a peer is, by Kademlia."""
        found = self._call(self._dht.find_peer, ID.from_base58(peer))
        return [] if found is None else [str(each) for each in found.addrs]

    def close(self) -> None:
        trio.from_thread.run_sync(self._stop.set, trio_token=self._token)
        self._thread.join(20)
        assert not self._thread.is_alive()

    def _call(self, action: Callable[..., Awaitable[Any]], *arguments: object) -> Any:
        return trio.from_thread.run(action, *arguments, trio_token=self._token)

    async def _main(self) -> None:
        self._token, self._stop = trio.lowlevel.current_trio_token(), trio.Event()
        self._host = new_host(key_pair=self._keys)
        self._router = GossipSub([PROTOCOL_ID_V11], degree=6, degree_low=4, degree_high=8, heartbeat_interval=1)
        self._pubsub = Pubsub(self._host, self._router)
        self._dht = KadDHT(self._host, DHTMode.SERVER)
        async with (
            self._host.run(listen_addrs=[Multiaddr("/ip4/127.0.0.1/tcp/0")]),
            background_trio_service(self._pubsub),
            background_trio_service(self._router),
        ):
            await self._pubsub.wait_until_ready()
            subscription = await self._pubsub.subscribe(self._topic)
            self.endpoint = str(self._host.get_addrs()[0])
            self._ready.set()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._listen, subscription)
                await self._stop.wait()
                nursery.cancel_scope.cancel()
        self._pubsub.seen_messages.stop()

    async def _listen(self, subscription: Any) -> None:
        while True:
            message = await subscription.get()
            if message.from_id != self._host.get_id().to_bytes():
                self.heard.put(message.data)
