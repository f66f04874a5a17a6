"""Kademlia as values: the table of peers by distance, and what is said on its streams. Opens and times nothing.

Source: libp2p's specification kad-dht. Peers are found, and who provides what (`providers`); values of strangers
are not kept. Who is in the table has proved its id on a link; what it says of others is hearsay to try.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable

import msgspec

from lading_net.binaddr import decode_endpoint, encode_endpoint
from lading_net.core.places import Place, place
from lading_net.errors import BadEndpoint, BadMessage
from lading_net.peer import Endpoint, PeerId
from lading_net.protobuf import decode_message, encode_count, encode_field, encode_number

KAD = "/ipfs/kad/1.0.0"
LONGEST = 64 * 1024
LONGEST_QUESTION = 8 * 1024
NEAREST = 20
MOST_ENDPOINTS = 8
AREA_OF_BUCKET = 4
"""Of one area, in one bucket: peer ids cost nothing, so that otherwise one machine could be all our neighbours."""

PUT_VALUE, GET_VALUE, ADD_PROVIDER, GET_PROVIDERS, FIND_NODE, PING = range(6)


class Contact(msgspec.Struct, frozen=True):
    """A peer, and where it says that it listens; the endpoints do not name it."""

    peer: PeerId
    endpoints: tuple[Endpoint, ...]

    @property
    def texts(self) -> tuple[str, ...]:
        return tuple(str(msgspec.structs.replace(each, peer=self.peer)) for each in self.endpoints)


class Question(msgspec.Struct, frozen=True):
    kind: int
    key: bytes = b""
    providers: tuple[Contact, ...] = ()


def spot(key: bytes) -> int:
    """Where a key, or a raw peer id, is among all."""
    return int.from_bytes(hashlib.sha256(key).digest(), "big")


class Table:
    """At most `NEAREST` peers at each order of distance; those that are there stay while they are `alive`."""

    def __init__(self, me: PeerId) -> None:
        self._me = spot(me.raw)
        self._buckets: dict[int, dict[PeerId, tuple[int, Contact, Place]]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._buckets.values()))

    def knows(self, contact: Contact) -> bool:
        """Whether it is there, with all of these endpoints."""
        entry = self._buckets.get(self._order(contact.peer), {}).get(contact.peer)
        return entry is not None and set(contact.endpoints) <= set(entry[1].endpoints)

    def room(self, contact: Contact, where: Place, alive: Collection[PeerId]) -> bool:
        return self._given_up(contact.peer, where, alive) is not None

    def add(self, contact: Contact, where: Place, alive: Collection[PeerId]) -> bool:
        """Whether there was room for it."""
        leaving = self._given_up(contact.peer, where, alive)
        if leaving is None:
            return False
        bucket = self._buckets.setdefault(self._order(contact.peer), {})
        for peer in leaving:
            del bucket[peer]
        bucket[contact.peer] = spot(contact.peer.raw), contact, where
        return True

    def _given_up(self, peer: PeerId, where: Place, alive: Collection[PeerId]) -> list[PeerId] | None:
        """Who leaves for a peer to come; None where nobody would."""
        bucket = self._buckets.get(self._order(peer), {})
        if peer in bucket:
            return []
        crowd = Counter(there.area for _, _, there in bucket.values() if not there.near)
        if crowd[where.area] >= AREA_OF_BUCKET:
            return None
        if len(bucket) < NEAREST:
            return []
        return next(([each] for each in bucket if each not in alive), None)

    def drop(self, peer: PeerId) -> None:
        self._buckets.get(self._order(peer), {}).pop(peer, None)

    def nearest(self, target: int, count: int = NEAREST, without: PeerId | None = None) -> list[Contact]:
        known = (entry for bucket in self._buckets.values() for entry in bucket.values())
        found = sorted((at ^ target, index, one) for index, (at, one, _) in enumerate(known) if one.peer != without)
        return [one for _, _, one in found[:count]]

    def _order(self, peer: PeerId) -> int:
        return (spot(peer.raw) ^ self._me).bit_length()


# -- on the wire: one message is a length and a protobuf --------------------------------------------------------------


def encode_question(question: Question) -> bytes:
    body = encode_count(1, question.kind) + encode_field(2, question.key)
    return _framed(body + _contacts(9, question.providers) + encode_count(10, 1))


def encode_answer(question: Question, closer: Iterable[Contact], providers: Iterable[Contact] = ()) -> bytes:
    body = encode_count(1, question.kind) + encode_field(2, question.key)
    return _framed(body + _contacts(8, closer) + _contacts(9, providers) + encode_count(10, 1))


def decode_question(data: bytes) -> Question:
    """Raises BadMessage."""
    try:
        fields, counts = decode_message(data)
    except ValueError:
        raise BadMessage("The peer's question is malformed.") from None
    return Question(counts.get(1, PUT_VALUE), fields.get(2, [b""])[-1], tuple(_named(fields.get(9, []), relayed=True)))


def reachable(told: Iterable[Contact], teller: Place) -> list[Contact]:
    """Those whom the teller could have dialled: it may not send us to a machine in our own network, unless it is in
    one too. Names are looked up later, and are as good as what they stand for."""
    found = []
    for one in told:
        endpoints = tuple(each for each in one.endpoints if teller.near or not place(each.host).near)
        if endpoints:
            found.append(Contact(one.peer, endpoints))
    return found


def decode_answer(data: bytes) -> list[Contact]:
    """Those that it names and that we could dial. Raises BadMessage."""
    return decode_providers(data)[1]


def decode_providers(data: bytes) -> tuple[list[Contact], list[Contact]]:
    """Who provides what was asked for, and who may know more of them. Raises BadMessage."""
    try:
        fields, _ = decode_message(data)
    except ValueError:
        raise BadMessage("The peer's answer is malformed.") from None
    return _named(fields.get(9, []), relayed=True), _named(fields.get(8, []))


def _named(packed: list[bytes], *, relayed: bool = False) -> list[Contact]:
    """Those that we could dial, also through relays where these count. Raises BadMessage."""
    try:
        told = [decode_message(each)[0] for each in packed[: 2 * NEAREST]]
    except ValueError:
        raise BadMessage("The peer's answer is malformed.") from None
    found = []
    for each in told:
        try:
            peer = PeerId.from_raw(each.get(1, [b""])[-1])
        except BadEndpoint:
            continue  # of a kind that we could not pay
        if endpoints := decode_endpoints(each.get(2, []), peer if relayed else None):
            found.append(Contact(peer, endpoints))
    return found


def decode_endpoints(packed: Iterable[bytes], owner: PeerId | None = None) -> tuple[Endpoint, ...]:
    """Those that can be dialled without a relay, and with an `owner` its own through relays, at most `MOST_ENDPOINTS`;
    whose they are is left out."""
    found: dict[Endpoint, None] = {}
    for each in list(packed)[: 2 * MOST_ENDPOINTS]:
        try:
            endpoint = decode_endpoint(each, owner)
        except BadEndpoint:
            continue
        if endpoint.port and (endpoint.via is None or (owner is not None and endpoint.peer == owner)):
            found[msgspec.structs.replace(endpoint, peer=None)] = None
    return tuple(found)[:MOST_ENDPOINTS]


def _contacts(number: int, all_: Iterable[Contact]) -> bytes:
    return b"".join(encode_field(number, _contact(one)) for one in all_)


def _contact(one: Contact) -> bytes:
    endpoints = b"".join(encode_field(2, encode_endpoint(each)) for each in one.endpoints)
    return encode_field(1, one.peer.raw) + endpoints + encode_count(3, 1)


def _framed(body: bytes) -> bytes:
    return encode_number(len(body)) + body
