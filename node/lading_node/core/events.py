"""What can happen to a job at its host, and what the host then does: two closed unions, values only."""

import msgspec

from lading_node.core.admission import Facts
from lading_protocol.ids import Wei
from lading_protocol.messages import Chance, Request, ToPayer
from lading_protocol.receipts import Finish, Receipt, SignedLock, SignedVoucher


class Opened(msgspec.Struct, frozen=True):
    """The payer's Open arrived, and the shell has looked up what it takes to decide on it."""

    facts: Facts


class Paid(msgspec.Struct, frozen=True):
    """A packed voucher arrived."""

    voucher: bytes


class Cancelled(msgspec.Struct, frozen=True):
    """The payer wants no more."""


class Gone(msgspec.Struct, frozen=True):
    """The payer closed its side, or the stream broke."""


class Persisted(msgspec.Struct, frozen=True):
    """A voucher over this amount (wei, cumulative) can no longer be lost."""

    cumulative: Wei


class PersistFailed(msgspec.Struct, frozen=True):
    """The ledger could not be written."""

    reason: str


class Woken(msgspec.Struct, frozen=True):
    """Time has passed, or something changed about the channel: another job was paid, the chain was read."""


class Stopped(msgspec.Struct, frozen=True):
    """The node ends the job: it shuts down, or withdraws the agent."""

    code: str
    message: str


class EngineStarted(msgspec.Struct, frozen=True):
    prompt_tokens: int
    prompt_hash: bytes


class EngineTraced(msgspec.Struct, frozen=True):
    """A part of the sketch of the positions before the first output token; all parts come before that token."""

    sketch: bytes


class EngineRun(msgspec.Struct, frozen=True):
    """Output tokens from absolute index `first` on, their sketch if the engine gave one of the prompt, and how likely
    each was if the request asks for it."""

    first: int
    ids: tuple[int, ...]
    text: str
    sketch: bytes = b""
    chances: tuple[Chance, ...] = ()


class EngineRows(msgspec.Struct, frozen=True):
    """All vectors of an embedding, float32 little endian, and the tokens of each input."""

    width: int
    data: bytes
    tokens: tuple[int, ...]


class EngineFinished(msgspec.Struct, frozen=True):
    finish: Finish


class EngineFailed(msgspec.Struct, frozen=True):
    code: str
    message: str


Event = (
    Opened
    | Paid
    | Cancelled
    | Gone
    | Persisted
    | PersistFailed
    | Woken
    | Stopped
    | EngineStarted
    | EngineTraced
    | EngineRun
    | EngineRows
    | EngineFinished
    | EngineFailed
)


class Send(msgspec.Struct, frozen=True):
    message: ToPayer


class SendReceipt(msgspec.Struct, frozen=True):
    """Sign it, send it as Chunk (while it says RUNNING) or Done, with its marks; keep it."""

    receipt: Receipt
    marks: bytes = b""


class StartEngine(msgspec.Struct, frozen=True):
    """`ahead`: how many tokens the engine may run ahead of what we take. `job` keys the sketch."""

    job: bytes
    request: Request
    emitted: tuple[int, ...]
    ahead: int


class PauseEngine(msgspec.Struct, frozen=True):
    """Take no more tokens from it for now."""


class ResumeEngine(msgspec.Struct, frozen=True):
    pass


class StopEngine(msgspec.Struct, frozen=True):
    """Ask it to end this generation; its last event may still come and is ignored unless awaited."""


class PersistVoucher(msgspec.Struct, frozen=True):
    """Write it to the ledger, durably, then say Persisted."""

    voucher: SignedVoucher


class SubmitLock(msgspec.Struct, frozen=True):
    """Keep the lock, and bring it to the chain in the background."""

    lock: SignedLock


class Record(msgspec.Struct, frozen=True):
    """The attempt is over: what it delivered and earned, whether or not a final receipt was sent.

    `code` is "" for a proper end. `unpaid` is what no voucher covers as of now (wei, of the whole channel). `sketch` is
    what the host must be able to open, in pieces.
    """

    output_tokens: int
    amount: Wei
    finish: Finish
    code: str
    unpaid: Wei
    sketch: tuple[bytes, ...] = ()


class Hangup(msgspec.Struct, frozen=True):
    """The conversation is over; the stream may be closed."""


Effect = (
    Send
    | SendReceipt
    | StartEngine
    | PauseEngine
    | ResumeEngine
    | StopEngine
    | PersistVoucher
    | SubmitLock
    | Record
    | Hangup
)
