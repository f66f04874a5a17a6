"""Of both courts. Amounts are wei, moments Unix seconds."""

from lading_contracts.events.base import Event
from lading_protocol.ids import Address, AgentId, Digest, Wei
from lading_protocol.receipts import Receipt

# --- AuditCourt ---


class Anchored(Event, frozen=True):
    poster: Address
    n: int
    root: Digest
    count: int


class Opened(Event, frozen=True):
    id: Digest
    host: Address
    challenger: Address
    receipt_digest: Digest
    draw_block: int
    receipt: Receipt


class Executed(Event, frozen=True):
    """`burnt`, `refunded`, `fee` (to the challenger) and `reward` (to jurors) add up to `slashed`."""

    id: Digest
    verdict: int
    slashed: Wei
    burnt: Wei
    refunded: Wei
    fee: Wei
    reward: Wei


# --- LineageCourt ---


class Contested(Event, frozen=True):
    """Answered before second `answer_by`, or admitted."""

    id: Digest
    agent: AgentId
    parent: AgentId
    challenger: Address
    evidence: Digest
    answer_by: int


class Answered(Event, frozen=True):
    id: Digest
    owner: Address
    draw_block: int


class Upheld(Event, frozen=True):
    """The agent is now under the parent; silence admitted it, or a committee ruled so."""

    id: Digest
    agent: AgentId
    parent: AgentId


class Moot(Event, frozen=True):
    """The contest was right, but another one came first."""

    id: Digest
    agent: AgentId
    parent: AgentId


class Dismissed(Event, frozen=True):
    """A committee ruled that the agent does not derive from the parent."""

    id: Digest
    agent: AgentId
    parent: AgentId


# --- both courts ---


class Rearmed(Event, frozen=True):
    """The block hash was out of reach: a later block draws."""

    id: Digest
    draw_block: int


class Drawn(Event, frozen=True):
    id: Digest
    round: int
    jurors: tuple[Address, ...]
    commit_by: int
    reveal_by: int


class Committed(Event, frozen=True):
    id: Digest
    round: int
    juror: Address


class Revealed(Event, frozen=True):
    id: Digest
    round: int
    juror: Address
    verdict: int
    evidence: Digest


class Ruled(Event, frozen=True):
    id: Digest
    round: int
    verdict: int
    appeal_by: int


class Stands(Event, frozen=True):
    """An appeal found no quorum: the ruling before it stands and may be executed at once."""

    id: Digest
    round: int
    verdict: int


class Appealed(Event, frozen=True):
    id: Digest
    round: int
    appellant: Address
    bond: Wei
    draw_block: int


class Paid(Event, frozen=True):
    id: Digest
    to: Address
    amount: Wei


class Voided(Event, frozen=True):
    id: Digest
    round: int


class Lodged(Event, frozen=True):
    juror: Address
    from_: Address
    amount: Wei


class TakenBack(Event, frozen=True):
    juror: Address
    owner: Address
    amount: Wei


class Freed(Event, frozen=True):
    """What a vote had set aside is part of its juror's surety again."""

    id: Digest
    juror: Address
    amount: Wei
