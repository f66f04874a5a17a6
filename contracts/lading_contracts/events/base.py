"""What every event is, and where it stands."""

import msgspec

from lading_protocol.ids import Digest


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
