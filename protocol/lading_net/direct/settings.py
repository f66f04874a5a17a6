"""How much a direct transport allows, and how long it waits. Defaults fit a home machine and a coordinator alike."""

from __future__ import annotations

import msgspec

from lading_net.direct.yamux import Limits
from lading_protocol.messages import BLOB


class DirectSettings(msgspec.Struct, frozen=True):
    """Times are seconds of the event loop's clock."""

    limits: Limits = msgspec.field(default_factory=Limits)
    dial_timeout: float = 10.0  # from the first packet to a link that is up
    handshake_timeout: float = 10.0  # the same for one who dials us
    open_timeout: float = 10.0  # for a stream that must wait for its turn, or for its protocol's name
    keepalive: float = 15.0  # a silent peer is asked after one period and given up after two
    probe: float = 2.0  # for an answer on an older link, when a newer one to the same peer appears
    links: int = 4096
    memory: int = 512 * 1024 * 1024  # bytes arrived and unread on all links, before the fullest stream is reset
    handshakes: int = 256  # under way at once; more are turned away at the door
    bulk: frozenset[str] = frozenset({BLOB})  # protocols whose streams give way to all others of their link
