"""Messages as peers read them that do not know a feature which added to them (docs/protocol.md, section 3.3)."""

from typing import Annotated

from msgspec import Meta

from lading_protocol.requests import MAX_TOKENS, Count, Hash, Request, Wire

INTERACTIVE, BATCH = 0, 1


class ElderOpen(Wire, frozen=True, tag="open"):
    """messages.Open for a host that does not know the feature `proof`."""

    version: int
    job: Hash
    attempt: Count
    offer: Hash
    signer: Annotated[bytes, Meta(min_length=20, max_length=20)]
    epoch: Count
    request: Request
    emitted: Annotated[tuple[Count, ...], Meta(max_length=MAX_TOKENS)] = ()
    lock: Annotated[bytes, Meta(max_length=1024)] = b""
    voucher: Annotated[bytes, Meta(max_length=1024)] = b""
    band: Annotated[int, Meta(ge=INTERACTIVE, le=BATCH)] = INTERACTIVE
    preempted: Annotated[int, Meta(ge=0, le=255)] = 0
