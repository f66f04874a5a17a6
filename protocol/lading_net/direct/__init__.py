"""The direct link: libp2p's data path (TCP, multistream, Noise, yamux) on asyncio, small and fast; and its relay.

Any libp2p peer with a secp256k1 identity can open a stream here. Discovery is `lading_net.gossip`'s.
"""

from lading_net.direct.autonat import CallBack, Reached, ask_to_be_called
from lading_net.direct.circuit import Reservation
from lading_net.direct.link import DirectLink
from lading_net.direct.pool import openings_at
from lading_net.direct.punch import Puncher
from lading_net.direct.relay import Relay, RelaySettings
from lading_net.direct.settings import DirectSettings
from lading_net.direct.stream import DirectStream
from lading_net.direct.transport import DirectTransport
from lading_net.direct.yamux import Limits

__all__ = [
    "CallBack",
    "DirectLink",
    "DirectSettings",
    "DirectStream",
    "DirectTransport",
    "Limits",
    "Puncher",
    "Reached",
    "Relay",
    "RelaySettings",
    "Reservation",
    "ask_to_be_called",
    "openings_at",
]
