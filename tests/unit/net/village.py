"""Gossip peers without a network: what one says the others hear at once, in order; time passes by ticks only."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random

from factories import key
from lading_net.core.mesh import Blame, Deliver, Habits, Mesh, Send
from lading_net.core.rpc import Cutter, Message, Rpc, decode_rpc, sign
from lading_protocol.ids import Address
from lading_protocol.keys import PrivateKey

TOPIC = "/lading/offers/1"


def said(data: bytes) -> Rpc:
    """What one RPC on the wire says."""
    (piece,) = Cutter().feed(data)
    return decode_rpc(piece)


class Villager:
    def __init__(self, name: str, habits: Habits | None = None) -> None:
        self.key: PrivateKey = key(name)
        self.name, self.address = name, self.key.address
        self.mesh = Mesh(self.address, Random(name), habits)
        self.heard: list[bytes] = []
        self.copies = 0  # of messages, that arrived
        self.blamed: list[Blame] = []
        self.deaf = False  # to messages: it passes none on
        self._seqno = 0

    def message(self, data: bytes, topic: str = TOPIC) -> Message:
        self._seqno += 1
        return sign(self.key, topic, data, self._seqno.to_bytes(8, "big"))


class Village:
    def __init__(self, count: int = 0, habits: Habits | None = None) -> None:
        self.now = 1_000.0
        self.habits = habits
        self.all: dict[Address, Villager] = {}
        self._wire: deque[tuple[Address, Address, bytes]] = deque()
        self.on_wire: Callable[[Address, Address, bytes], bool] = lambda _from, _to, _data: True
        for number in range(count):
            self.settle(f"villager {number}")

    def settle(self, name: str) -> Villager:
        one = Villager(name, self.habits)
        self.all[one.address] = one
        return one

    def link(self, dialler: Villager, other: Villager) -> None:
        dialler.mesh.join(other.address, True, self.now)
        other.mesh.join(dialler.address, False, self.now)
        self.run()

    def subscribe(self, *ones: Villager) -> None:
        for one in ones:
            one.mesh.subscribe(TOPIC, self.now)
        self.run()

    def publish(self, one: Villager, data: bytes) -> Message:
        message = one.message(data)
        one.mesh.publish(message, self.now)
        self.run()
        return message

    def tick(self, times: int = 1) -> None:
        for _ in range(times):
            self.now += 1.0
            for one in self.all.values():
                one.mesh.tick(self.now)
            self.run()

    def run(self) -> None:
        """Until nobody has anything to say."""
        while True:
            for one in self.all.values():
                self._collect(one)
            if not self._wire:
                return
            sender, receiver, data = self._wire.popleft()
            if self.on_wire(sender, receiver, data) and receiver in self.all:
                self.tell(self.all[receiver], sender, said(data), len(data))

    def tell(self, one: Villager, sender: Address, rpc: Rpc, size: int = 100) -> None:
        one.copies += len(rpc.messages)
        if not one.deaf:
            one.mesh.hear(sender, rpc, size, self.now)
        else:
            one.mesh.hear(sender, Rpc(rpc.joined, rpc.left, graft=rpc.graft, prune=rpc.prune), size, self.now)
        self._collect(one)

    def _collect(self, one: Villager) -> None:
        effects, one.mesh.effects = one.mesh.effects, []
        for effect in effects:
            match effect:
                case Send(peers, data):
                    self._wire.extend((one.address, peer, data) for peer in peers)
                case Deliver(_, data):
                    one.heard.append(data)
                case Blame():
                    one.blamed.append(effect)
