"""What is asked of a dispatcher, and what it says of a job while it runs: values only."""

from enum import Enum
from typing import Protocol

import msgspec

from lading.core.matching import Filters
from lading.errors import BadRequest
from lading_protocol.ids import Address, AgentId, JobId, Wei
from lading_protocol.keys import PrivateKey
from lading_protocol.messages import Chance, Request
from lading_protocol.offers import KnownOffer
from lading_protocol.pricing import Price
from lading_protocol.receipts import Finish


class Payer(msgspec.Struct, frozen=True):
    """Who pays: `key` signs vouchers for `payer`'s deposit; `limit` (wei) bounds all its locks, landed or not."""

    key: PrivateKey
    payer: Address
    limit: Wei


class Ask(msgspec.Struct, frozen=True):
    """`emitted` are output tokens that the consumer has already, from another gateway: the answer goes on after them.

    `proof` is the receipt of the host that read the prompt for them, packed, if there is one. With `told` the
    consumer hears of each receipt when it comes (Signed), of the first with the first token: it may go on elsewhere.

    `batch` work gives way to everything else: a host may stop it, and it goes on later. With `hedge` a second host is
    asked where the first token is late; it keeps to `max_price` like the first.
    """

    agent: AgentId
    request: Request
    max_price: Price | None = None
    filters: Filters = Filters()
    batch: bool = False
    emitted: tuple[int, ...] = ()
    hedge: bool = False
    proof: bytes = b""
    told: bool = False


class Started(msgspec.Struct, frozen=True):
    """A host has accepted; sent before the first piece, again if that host drops out before it."""

    job: JobId
    host: Address
    offer: KnownOffer
    prompt_tokens: int


class Piece(msgspec.Struct, frozen=True):
    """Output tokens from absolute index `first` on, and how likely each was where the request asks for it. `cost` is
    what the job has come to with them (wei)."""

    first: int
    ids: tuple[int, ...]
    text: str
    chances: tuple[Chance, ...] = ()
    cost: Wei = Wei(0)


class Signed(msgspec.Struct, frozen=True):
    """A host's receipt of what it has delivered so far, packed, and the marks that it adds to those before."""

    receipt: bytes
    marks: bytes


class Rows(msgspec.Struct, frozen=True):
    """All vectors of an embedding, float32 little endian."""

    width: int
    data: bytes


class Moved(msgspec.Struct, frozen=True):
    """A host dropped out; the job goes on elsewhere."""

    host: Address
    code: str
    reason: str


class Settling(Enum):
    """How the account of an attempt stands. It is closed once, on the way out of OPEN, and never opened again.

    SETTLED: all that is owed is promised with the channel's next voucher. LATE: so too, but the host's last word did
    not come in time, and what it may still say changes nothing.
    """

    OPEN = "open"
    SETTLED = "settled"
    LATE = "late"


class Part(msgspec.Struct, frozen=True):
    """What one host delivered and is promised for it (wei). `receipt` is packed, b"" for none, `marks` are those of its
    commitment."""

    host: Address
    offer: KnownOffer
    attempt: int
    first: int
    tokens: int
    amount: Wei
    receipt: bytes
    marks: tuple[bytes, ...] = ()
    settling: Settling = Settling.SETTLED


class Ended(msgspec.Struct, frozen=True):
    """The job's account. `finish` is RUNNING when it was lost. The first `given` of `emitted` came with the Ask."""

    job: JobId
    request: Request
    agent: AgentId
    payer: Address
    signer: Address
    finish: Finish
    prompt_tokens: int
    prompt_hash: bytes
    emitted: tuple[int, ...]
    vectors: bytes
    parts: tuple[Part, ...]
    given: int = 0

    @property
    def output_tokens(self) -> int:
        return len(self.emitted) - self.given

    @property
    def cost(self) -> Wei:
        return Wei(sum(part.amount for part in self.parts))


Event = Started | Piece | Signed | Rows | Moved | Ended


class Listener(Protocol):
    """Who hears of a job. Events come one by one, from within the network's own turn: nothing here may block."""

    def hear(self, event: Event) -> None:
        """What it raises ends the job."""
        ...

    def lull(self) -> bool:
        """Nothing more is at hand for now: what it held back, to hand on together what came together, must go. Whether
        it wants more; else the host is not read until `drain` returns."""
        ...

    async def drain(self) -> None:
        """Until it wants more; holds nothing back meanwhile."""
        ...


class Refusal(BadRequest):
    """A host refused in a way that no other host would answer differently; `code` is the host's."""
