"""How much a direct transport allows, and how long it waits. Defaults fit a home machine and a coordinator alike."""

from __future__ import annotations

import msgspec

from lading_net.core.guard import Limits as GuardLimits
from lading_net.core.quotas import Rate
from lading_net.direct.pool import OPENINGS
from lading_net.direct.yamux import Limits
from lading_net.private import NetworkKey
from lading_protocol.messages import BLOB


class DirectSettings(msgspec.Struct, frozen=True):
    """Times are seconds of the event loop's clock."""

    limits: Limits = msgspec.field(default_factory=Limits)
    dial_timeout: float = 10.0  # from the first packet to a link that is up
    handshake_timeout: float = 10.0  # the same for one who dials us
    open_timeout: float = 10.0  # for a stream that must wait for its turn, or for its protocol's name
    keepalive: float = 15.0  # a silent peer is asked after one period and given up after two
    idle: float = 600.0  # a link without a stream is closed after it
    probe: float = 2.0  # for an answer on an older link, when a newer one to the same peer appears
    memory: int = 512 * 1024 * 1024  # bytes arrived and unread on all links, before the fullest stream is reset
    queued: int = 512 * 1024 * 1024  # and bytes written and unsent, before the fullest stream is reset
    streams: int = 16_384  # opened by peers on all links; a link may have as many as are left to the others
    openings: Rate = OPENINGS  # of streams from one machine; those beyond are reset, and a link with 1,024 such ends
    pings: Rate = Rate(burst=32, second=4)  # of one link that are answered
    guard: GuardLimits = GuardLimits()
    bulk: frozenset[str] = frozenset({BLOB})  # protocols whose streams give way to all others of their link
    network: NetworkKey | None = None  # of a private network; both ends must have it
