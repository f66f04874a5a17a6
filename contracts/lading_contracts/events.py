"""What the contracts say happened, as frozen structs. Field order is the ABI's; a test compares the two."""

import re
from collections.abc import Callable
from typing import Any

import msgspec

from lading_contracts import abi
from lading_contracts.port import Log
from lading_contracts.registry import Party, Role
from lading_protocol.ids import Address, AgentId, Digest, TermsId, Wei
from lading_protocol.receipts import Receipt


class Event(msgspec.Struct, frozen=True):
    """Base of all events, so that a function can say it takes one."""


class Entry(msgspec.Struct, frozen=True):
    """An event and where it stands on the chain."""

    event: Event
    contract: str
    block: int
    block_hash: Digest
    tx: Digest
    index: int


# --- AICoin ---


class Transfer(Event, frozen=True):
    from_: Address
    to: Address
    value: Wei


class Approval(Event, frozen=True):
    owner: Address
    spender: Address
    value: Wei


# --- AgentRegistry ---


class AgentRegistered(Event, frozen=True):
    agent: AgentId
    owner: Address
    parent: AgentId
    royalty_bps: int


class TermsAgreed(Event, frozen=True):
    id: TermsId
    agent: AgentId
    parties: tuple[Party, ...]


# --- Settlement ---


class Deposited(Event, frozen=True):
    payer: Address
    from_: Address
    amount: Wei


class Authorized(Event, frozen=True):
    payer: Address
    key: Address
    cap: Wei
    expiry: int


class Revoked(Event, frozen=True):
    payer: Address
    key: Address


class ExitRequested(Event, frozen=True):
    """`amount` zero: the exit was called off."""

    payer: Address
    amount: Wei
    exit_at: int


class Exited(Event, frozen=True):
    payer: Address
    amount: Wei


class Locked(Event, frozen=True):
    """`locked` is the channel's new total."""

    signer: Address
    host: Address
    terms: TermsId
    epoch: int
    locked: Wei


class Redeemed(Event, frozen=True):
    """One per batch; `rows` vouchers moved something."""

    host: Address
    terms: TermsId
    epoch: int
    host_amount: Wei
    royalty: Wei
    rows: int


class CloseStarted(Event, frozen=True):
    signer: Address
    host: Address
    terms: TermsId
    epoch: int
    closes_at: int


class Closed(Event, frozen=True):
    signer: Address
    host: Address
    terms: TermsId
    epoch: int
    payer: Address
    returned: Wei


class Claimed(Event, frozen=True):
    terms: TermsId
    payee: Address
    k: int
    amount: Wei


class PayoutSet(Event, frozen=True):
    host: Address
    payout: Address


class Withdrawn(Event, frozen=True):
    host: Address
    payout: Address
    amount: Wei


# --- Staking ---


class Staked(Event, frozen=True):
    """`stake` is the operator's new total."""

    operator: Address
    owner: Address
    amount: Wei
    stake: Wei


class UnstakeRequested(Event, frozen=True):
    operator: Address
    amount: Wei
    unlock_at: int


class Unstaked(Event, frozen=True):
    operator: Address
    owner: Address
    amount: Wei


class Slashed(Event, frozen=True):
    """`amount` left the operator; `burnt` of it was destroyed, the court distributes the rest."""

    operator: Address
    amount: Wei
    burnt: Wei


class Jailed(Event, frozen=True):
    operator: Address
    until: int


class Activated(Event, frozen=True):
    operator: Address


class Deactivated(Event, frozen=True):
    operator: Address


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


class Executed(Event, frozen=True):
    """`burnt`, `refunded`, `fee` (to the challenger) and `reward` (to jurors) add up to `slashed`."""

    id: Digest
    verdict: int
    slashed: Wei
    burnt: Wei
    refunded: Wei
    fee: Wei
    reward: Wei


class Paid(Event, frozen=True):
    id: Digest
    to: Address
    amount: Wei


class Voided(Event, frozen=True):
    id: Digest
    round: int


def decode(contract: str, log: Log) -> Entry | None:
    """The event in a log of the contract called `contract`; None for one that this version does not know."""
    item = abi.load(contract).events.get(log.topics[0]) if log.topics else None
    kind = None if item is None else KINDS.get(item.name)
    if item is None or kind is None:
        return None
    values = _values(item, log)
    return Entry(kind(*values), contract, log.block, log.block_hash, log.tx, log.index)


def _values(item: abi.Item, log: Log) -> list[Any]:
    from_topics = iter(log.topics[1:])
    plain = iter(
        abi.decode([kind for kind, topic in zip(item.inputs, item.indexed, strict=True) if not topic], log.data)
    )
    values = []
    for name, kind, topic in zip(item.names, item.inputs, item.indexed, strict=True):
        value = abi.decode((kind,), next(from_topics))[0] if topic else next(plain)
        values.append(_STRUCTS[name](value) if name in _STRUCTS else value)
    return values


_STRUCTS: dict[str, Callable[[Any], Any]] = {
    "parties": lambda rows: tuple(Party(payee, Role(role), bps) for payee, role, bps in rows),
    "receipt": lambda fields: Receipt(*fields),
}


def field_name(name: str) -> str:
    """The struct field of an ABI input: hostAmount becomes host_amount, from becomes from_."""
    snake = re.sub(r"(?<=[a-z0-9])([A-Z])", lambda found: "_" + found[1].lower(), name)
    return snake + "_" if snake == "from" else snake


KINDS: dict[str, type[Event]] = {kind.__name__: kind for kind in Event.__subclasses__()}
