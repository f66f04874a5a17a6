"""What the contracts say happened, as frozen structs. Field order is the ABI's; a test holds both against each other."""

import re
from typing import Any

import msgspec

from lading_contracts import abi
from lading_contracts.port import Log
from lading_contracts.registry import Party, Role
from lading_protocol.ids import Address, AgentId, Digest, TermsId, Wei


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
    payer: Address
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


#STAKING

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
    plain = iter(abi.decode([kind for kind, topic in zip(item.inputs, item.indexed, strict=True) if not topic], log.data))
    values = []
    for name, kind, topic in zip(item.names, item.inputs, item.indexed, strict=True):
        value = abi.decode((kind,), next(from_topics))[0] if topic else next(plain)
        values.append(tuple(Party(p, Role(r), b) for p, r, b in value) if name == "parties" else value)
    return values


def field_name(name: str) -> str:
    """The struct field of an ABI input: hostAmount becomes host_amount, from becomes from_."""
    snake = re.sub(r"(?<=[a-z0-9])([A-Z])", lambda found: "_" + found[1].lower(), name)
    return snake + "_" if snake == "from" else snake


KINDS: dict[str, type[Event]] = {kind.__name__: kind for kind in Event.__subclasses__()}
