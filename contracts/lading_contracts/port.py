"""The chain as the rest of Lading sees it: six questions, two ways to send, and five frozen values.

Implementations: `rpc.RpcChain` (any EVM endpoint) and `fake.FakeChain` (in memory, virtual clock). Every method may
raise ChainUnreachable; none blocks the event loop. What the bytes mean is the typed contract classes' business.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import msgspec

from lading_protocol.ids import Address, Digest, Signature, Wei


class Signer(Protocol):
    """Whoever can sign a transaction: lading_protocol.keys.PrivateKey, or a wallet behind the same two names."""

    @property
    def address(self) -> Address: ...

    def sign_digest(self, digest: bytes) -> Signature: ...


class Block(msgspec.Struct, frozen=True):
    """A block header, as far as followers and time windows need it. `timestamp` is in Unix seconds."""

    number: int
    hash: Digest
    parent: Digest
    timestamp: int


class Log(msgspec.Struct, frozen=True):
    """One raw event. Decode it with `events.decode`."""

    address: Address
    topics: tuple[bytes, ...]
    data: bytes
    block: int
    block_hash: Digest
    tx: Digest
    index: int


class TxReceipt(msgspec.Struct, frozen=True):
    """A transaction that was included and succeeded. `created` is the new contract's address, if it made one."""

    tx: Digest
    nonce: int
    block: int
    block_hash: Digest
    gas_used: int
    gas_price: Wei
    logs: tuple[Log, ...]
    created: Address | None = None


class Signed(msgspec.Struct, frozen=True):
    """A signed transaction: what is broadcast, and the hash by which to ask for it.

    The same bytes may go out any number of times: they are one transaction. Of several with one nonce at most one is
    ever included.
    """

    raw: bytes
    hash: Digest
    nonce: int


Note = Callable[[Signed], Awaitable[None]]
"""Told of every transaction after it is signed and before it is broadcast. When it raises, nothing goes out."""


class Outbox(Protocol):
    """How transactions get onto a chain. Concurrent sends from one key are safe."""

    async def send(
        self, signer: Signer, to: Address | None, data: bytes, value: int = 0, note: Note | None = None
    ) -> TxReceipt:
        """Sign, broadcast and wait until a block includes the transaction; `to=None` creates a contract.

        NotIncluded is the only error that leaves the transaction's fate open. Reverted and Replaced are final as far as
        the newest block is. All others (NoFunds, TxRefused, ChainUnreachable, a `note` that fails) mean that nothing
        went out. What `note` saw last is what to `resume` after a crash or NotIncluded.
        """
        ...

    async def resume(self, signer: Signer, sent: Sequence[Signed], note: Note | None = None) -> TxReceipt:
        """Take up what an earlier `send` left open: look for it, broadcast it again, offer more for it, and wait.

        `sent` share one nonce, oldest first; no other nonce is ever used for it. Should a nonce below it have been
        forgotten by all pools, so that no block could ever take it, an empty transaction fills that. Raises as `send`
        does, and ChainUnreachable while nothing can be asked, which leaves its fate as open as it was.
        """
        ...


class Chain(Outbox, Protocol):
    """One EVM chain."""

    @property
    def chain_id(self) -> int: ...

    async def block(self, number: int | None = None) -> Block | None:
        """The newest block, or the one at this height; None above the head."""
        ...

    async def call(self, to: Address, data: bytes, sender: Address | None = None) -> bytes:
        """Run a view on the newest state. Raises Reverted."""
        ...

    async def logs(self, addresses: Sequence[Address], first: int, last: int) -> tuple[Log, ...]:
        """Events of these contracts in blocks first..last, both included, in chain order. Raises TooWide."""
        ...

    async def balance(self, address: Address) -> Wei:
        """The account's balance of the chain's own currency."""
        ...

    async def code(self, address: Address) -> bytes:
        """The code at an address; empty for an ordinary account."""
        ...
