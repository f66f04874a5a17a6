"""Who plays in the demo: every party with a key of its own, derived from one seed, and its name on the screen."""

import msgspec

from lading_protocol.ids import Address
from lading_protocol.keys import PrivateKey
from lading_protocol.transcript import sha256

COIN = 10**18
GAS = 10**19


class Party(msgspec.Struct, frozen=True):
    """`cold` holds an operator's stake and pay-outs, so that the key on the machine can lose neither."""

    name: str
    key: PrivateKey
    cold: PrivateKey | None = None

    @property
    def address(self) -> Address:
        return self.key.address

    @property
    def addresses(self) -> tuple[Address, ...]:
        return (self.key.address,) if self.cold is None else (self.key.address, self.cold.address)


def party(name: str, seed: str, *, host: bool = False) -> Party:
    root = PrivateKey(sha256(f"lading demo/{seed}/{name}".encode()))
    return Party(name, root, root.child("cold") if host else None)


class Cast:
    """`greedy` and `thrifty` are the two cheats: the fourth node with a smaller model, then, under a new key, int4."""

    def __init__(self, seed: str) -> None:
        self.consumer = party("consumer", seed)
        self.maker = party("maker", seed)
        self.oem = party("OEM", seed)
        self.curator = party("curator", seed)
        self.hosts = [party(f"node {i}", seed, host=True) for i in (1, 2, 3)]
        self.greedy = party("node 4 (small model)", seed, host=True)
        self.thrifty = party("node 4 again (int4)", seed, host=True)

    @property
    def operators(self) -> list[Party]:
        return [*self.hosts, self.greedy, self.thrifty]

    @property
    def everyone(self) -> list[Party]:
        return [self.consumer, self.maker, self.oem, self.curator, *self.operators]
