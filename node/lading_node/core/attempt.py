"""An attempt as its host sees it, and the papers that follow from it: what it costs so far, its receipt, its account.

Values only; how one session leads to the next is core/session's.
"""

from enum import IntEnum

import msgspec

from lading_node.core import channel as channels
from lading_node.core import commit
from lading_node.core.admission import Facts
from lading_node.core.channel import Channel
from lading_node.core.events import EngineRun, Record, SendReceipt
from lading_protocol.ids import Address, Digest, JobId, Wei
from lading_protocol.messages import Open, request_hash
from lading_protocol.offers import KnownOffer
from lading_protocol.pricing import attempt_amount
from lading_protocol.receipts import TIERS, Finish, Receipt


class Phase(IntEnum):
    NEW = 0
    STARTING = 1  # the engine was asked; nothing is promised yet
    RUNNING = 2  # accepted
    LINGERING = 3  # all is said and done but for the payer's last voucher
    OVER = 4


class Session(msgspec.Struct, frozen=True):
    """`backlog` holds tokens that are made but not paid ahead for; `receipted` is `count` as of the last receipt.

    `deadline` (the clock of `apply`) is when patience with the payer ends; None while nothing is awaited of it.
    `persisting` vouchers are on their way to the ledger; the attempt is not over before their fate is known. `sketch`
    is that of the prompt and of what was delivered, in pieces.
    """

    opening: Open
    host: Address
    facts: Facts | None = None
    phase: Phase = Phase.NEW
    prompt_tokens: int = 0
    prompt_hash: bytes = b""
    count: int = 0
    rolling: Digest = Digest(bytes(32))
    tree: commit.Commitment | None = None
    rows: Digest | None = None
    sketch: tuple[bytes, ...] = ()
    receipted: int = 0
    backlog: tuple[EngineRun, ...] = ()
    finished: Finish | None = None
    paused: bool = False
    cancelled: bool = False
    persisting: int = 0
    gone: bool = False
    deadline: float | None = None

    @property
    def job(self) -> JobId:
        return JobId(self.opening.job)

    @property
    def first(self) -> int:
        return len(self.opening.emitted)

    @property
    def offer(self) -> KnownOffer:
        assert self.facts is not None
        assert self.facts.offer is not None
        return self.facts.offer

    @property
    def over(self) -> bool:
        return self.phase is Phase.OVER


def amount(session: Session) -> Wei:
    """What the attempt costs so far, in wei: the payer's own formula (lading_protocol.job.owed)."""
    return amount_at(session, session.count)


def amount_at(session: Session, count: int) -> Wei:
    delivered = count > 0 or session.rows is not None
    return attempt_amount(session.offer.price, session.prompt_tokens if delivered else 0, session.first, count)


def receipt_of(session: Session, finish: Finish, now: float) -> tuple[Session, SendReceipt]:
    opening, offer = session.opening, session.offer.offer
    assert session.tree is not None
    receipt = Receipt(
        job=opening.job,
        attempt=opening.attempt,
        request=request_hash(opening.request),
        agent=offer.agent,
        terms=offer.terms,
        host=session.host,
        signer=Address(opening.signer),
        epoch=opening.epoch,
        first=session.first,
        prompt_tokens=session.prompt_tokens,
        output_tokens=session.count,
        prompt_hash=session.prompt_hash,
        commitment=session.rows if session.rows is not None else commit.root(session.tree),
        price_in=offer.price_in,
        price_out=offer.price_out,
        amount=amount(session),
        finish=finish,
        issued_at=int(now),
        tier=TIERS.index(session.offer.detail.tier),
    )
    marks = b"".join(commit.marks_since(session.tree, session.receipted))
    return msgspec.structs.replace(session, receipted=session.count), SendReceipt(receipt, marks)


def record_of(session: Session, channel: Channel, finish: Finish, code: str) -> Record:
    sketch = session.sketch if session.tree is not None and session.tree.is_sketched else ()
    return Record(session.count, amount(session), finish, code, channels.outstanding(channel), sketch)
