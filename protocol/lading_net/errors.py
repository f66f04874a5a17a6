"""Everything that can go wrong on the network, once: a stable code, a sentence for a person, and what to do about it.

Foreign exceptions (OSError, cryptography, msgspec) are translated into these where they arise; nothing else leaves
this package.
"""

from __future__ import annotations

from lading_protocol.errors import LadingError


class NetError(LadingError):
    """Base of all; `code` is stable and may be compared, the sentence is for people and may change."""

    code = "net"


class BadEndpoint(NetError):
    """The endpoint is not a multiaddr this network can use."""

    code = "net_bad_endpoint"
    hint = "Write it as /ip4/203.0.113.7/tcp/4101/p2p/<peer id>; /ip6/ and /dns4/ work too."


class PortInUse(NetError):
    """Another program listens on the port already."""

    code = "net_port_in_use"
    hint = "Stop the other program, or choose another port (0 takes any free one)."


class ListenFailed(NetError):
    """The system refused to let us listen there."""

    code = "net_listen_failed"
    hint = "Check that the address belongs to this machine and that the port is above 1023."


class DialFailed(NetError):
    """Nobody answered at the endpoint."""

    code = "net_dial_failed"
    hint = "Check that the peer is up and that its advertised address is reachable from here."


class NetTimeout(NetError):
    """The peer did not answer in time."""

    code = "net_timeout"
    hint = "The peer may be overloaded or behind a firewall; try another one or try later."


class HandshakeFailed(NetError):
    """The peer does not speak our protocols, or its proof of identity is wrong."""

    code = "net_handshake_failed"
    hint = "Check that the endpoint is a libp2p TCP address that offers noise and yamux."


class WrongPeer(NetError):
    """Someone answered, and proved to be someone else."""

    code = "net_wrong_peer"
    hint = "The address may have been taken over or the advert is stale; look the peer up again."


class PeerBarred(NetError):
    """The peer broke the protocol again and again; we neither call it nor answer it for a while."""

    code = "net_peer_barred"
    hint = "Use another peer."


class ProtocolViolation(NetError):
    """The peer sent something the protocol forbids; the link was closed."""

    code = "net_protocol_violation"
    hint = "The peer runs faulty or hostile software; use another peer."


class LinkClosed(NetError):
    """The link to the peer is gone."""

    code = "net_link_closed"
    hint = "Dial again; work in progress must be resumed elsewhere."


class StreamReset(NetError):
    """The peer gave this stream up."""

    code = "net_stream_reset"
    hint = "The peer refused or failed the request; see its reason if it sent one, or try another peer."


class StreamClosed(NetError):
    """We closed our side of the stream before."""

    code = "net_stream_closed"
    hint = "Write before close()."


class UnknownProtocol(NetError):
    """The peer does not serve this protocol."""

    code = "net_unknown_protocol"
    hint = "The peer may run another version of Lading, or play another role."


class TooManyStreams(NetError):
    """One side's limit of concurrent streams on this link is reached."""

    code = "net_too_many_streams"
    hint = "Wait for running requests to end, or use another peer."


class BufferFull(NetError):
    """More was written without draining than a stream may hold."""

    code = "net_buffer_full"
    hint = "Await drain() between writes."


class MessageTooLarge(NetError):
    """A message is larger than the limit."""

    code = "net_message_too_large"
    hint = "Split it; the limit is 1 MiB per message."


class BadMessage(NetError):
    """The peer sent bytes that are not a message of this conversation."""

    code = "net_bad_message"
    hint = "The peer may run another version of Lading."


class NoCommonVersion(NetError):
    """The peer and we speak no version of the protocol in common."""

    code = "net_no_common_version"
    hint = "Update the program that is behind; each speaks its version and the one before."


class BadNetworkKey(NetError):
    """The file does not hold the key of a private network."""

    code = "net_bad_network_key"
    hint = "Ask who runs the network for its swarm key file, or make one: lading network new-key."
