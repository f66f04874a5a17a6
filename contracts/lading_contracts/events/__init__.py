"""What the contracts say happened, as frozen structs. Field order is the ABI's; a test compares the two.

Some events stand in several contracts with the same words (those of payments, and of both courts): `Entry.contract`
says which one spoke.
"""

import re
from collections.abc import Callable
from typing import Any

from lading_contracts import abi
from lading_contracts.events.agents import *  # noqa: F403
from lading_contracts.events.base import Entry as Entry
from lading_contracts.events.base import Event as Event
from lading_contracts.events.courts import *  # noqa: F403
from lading_contracts.events.market import *  # noqa: F403
from lading_contracts.events.money import *  # noqa: F403
from lading_contracts.leases import lease_of
from lading_contracts.parameters import CourtParams, MarketParams, from_tuple
from lading_contracts.port import Log
from lading_contracts.registry import table
from lading_protocol.receipts import Offer, Receipt


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
        made = _STRUCTS.get((item.name, name))
        values.append(value if made is None else made(value))
    return values


_STRUCTS: dict[tuple[str, str], Callable[[Any], Any]] = {
    ("TermsAgreed", "parties"): table,
    ("AuctionOpened", "base"): table,
    ("Opened", "receipt"): lambda fields: Receipt(*fields),
    ("OfferPublished", "offer"): lambda fields: Offer(*fields),
    ("LeaseBid", "lease"): lease_of,
    ("CourtParamsSet", "params"): lambda fields: from_tuple(CourtParams, fields),
    ("MarketParamsSet", "params"): lambda fields: from_tuple(MarketParams, fields),
}


def field_name(name: str) -> str:
    """The struct field of an ABI input: hostAmount becomes host_amount, from becomes from_."""
    snake = re.sub(r"(?<=[a-z0-9])([A-Z])", lambda found: "_" + found[1].lower(), name)
    return snake + "_" if snake == "from" else snake


KINDS: dict[str, type[Event]] = {kind.__name__: kind for kind in Event.__subclasses__()}
