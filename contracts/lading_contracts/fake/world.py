"""What the fake contracts live on: books that can be rolled back, one transaction's surroundings, and refusals."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from lading_protocol.errors import BadSignature
from lading_protocol.ids import Address
from lading_protocol.keys import recover

K = TypeVar("K")
V = TypeVar("V")

_HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0

Undo = list[Callable[[], None]]


class Refused(Exception):
    """A contract's custom error, by name, with its arguments."""

    def __init__(self, name: str, *arguments: Any) -> None:
        super().__init__(name)
        self.name = name
        self.arguments = arguments


def require(condition: bool, name: str, *arguments: Any) -> None:
    if not condition:
        raise Refused(name, *arguments)


def signer_of(digest: bytes, signature: bytes) -> Address:
    """Who signed, or the refusals of OpenZeppelin's ECDSA library."""
    require(len(signature) == 65, "ECDSAInvalidSignatureLength", len(signature))
    s = signature[32:64]
    require(int.from_bytes(s, "big") <= _HALF_ORDER, "ECDSAInvalidSignatureS", s)
    try:
        return recover(digest, signature)
    except BadSignature:
        raise Refused("ECDSAInvalidSignature") from None


def signed_by(signer: Address, digest: bytes, signature: bytes) -> bool:
    """As the contracts' Signatures, without ERC-1271: no account of a fake chain has code that could answer."""
    try:
        return recover(digest, signature) == signer
    except BadSignature:
        return False


class Book(Generic[K, V]):
    """A mapping with a default, as Solidity has them. Values are immutable; every change can be undone."""

    def __init__(self, world: "World", default: V) -> None:
        self._world = world
        self._default = default
        self._values: dict[K, V] = {}

    def __getitem__(self, key: K) -> V:
        return self._values.get(key, self._default)

    def __setitem__(self, key: K, value: V) -> None:
        known, before = key in self._values, self._values.get(key)

        def undo() -> None:
            if known:
                self._values[key] = before  # type: ignore[assignment]
            else:
                del self._values[key]

        self._world.undo.append(undo)
        self._values[key] = value

    def values(self) -> Iterator[V]:
        return iter(self._values.values())


class World:
    """The state that all fake contracts share. `undo` collects how to take the current transaction back."""

    def __init__(self, chain_id: int, block_hash: Callable[[int], bytes]) -> None:
        self.chain_id = chain_id
        self.block_hash = block_hash
        self.undo: Undo = []
        self.contracts: dict[Address, Any] = {}
        self.nonces: Book[Address, int] = Book(self, 0)
        self.native: Book[Address, int] = Book(self, 10**24)
        self.now = 0
        self.number = 0
        self.emitted: list[tuple[Address, str, tuple[Any, ...]]] = []
        self.run: Callable[[Address, bytes, Address], bytes]
        """Calls a contract with (to, data, sender): for a contract that calls what others tell it to."""

    def roll_back(self, to: int = 0) -> None:
        while len(self.undo) > to:
            self.undo.pop()()

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """A call that may fail without its caller: what it did is taken back when it is refused."""
        undo, emitted = len(self.undo), len(self.emitted)
        try:
            yield
        except Refused:
            self.roll_back(undo)
            del self.emitted[emitted:]
            raise

    def create(self, address: Address, contract: Any) -> None:
        self.contracts[address] = contract
        self.undo.append(lambda: self.contracts.pop(address, None))


class Model:
    """A fake contract at an address. Its public methods are the contract's verbs in snake case, the sender first."""

    def __init__(self, world: World, address: Address) -> None:
        self.world = world
        self.address = address

    def emit(self, event: str, *values: Any) -> None:
        """Values in the ABI's order."""
        self.world.emitted.append((self.address, event, values))
