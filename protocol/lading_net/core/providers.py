"""Who says that it provides what, by Kademlia's keys: records of strangers, in bounded memory, each for a time.

A provider speaks for itself only, and was seen on a link when it did; where it can be called is hearsay to try.
"""

from __future__ import annotations

import hashlib

from lading_net.core.crowds import Crowd
from lading_net.core.kademlia import Contact
from lading_net.core.places import Place
from lading_net.peer import PeerId

LIFE_SECONDS = 7200.0
MOST_RECORDS = 16_384
MOST_OF_KEY = 64
OF_AREA = 8
"""Of one key, so that no crowd of names is all that its asker hears of."""

ANSWERED = 20
_MULTIHASH = b"\x12\x20"  # sha2-256, of 32 bytes
Record = tuple[bytes, PeerId]


def provider_key(agent: bytes) -> bytes:
    """Where an agent's hosts are asked for."""
    return _MULTIHASH + hashlib.sha256(b"lading/agent/1" + agent).digest()


class Providers:
    """At most `MOST_RECORDS`: when there are more, the area that has the most gives way."""

    def __init__(self) -> None:
        self._kept: dict[bytes, dict[PeerId, tuple[float, Contact, Place]]] = {}
        self._crowd: Crowd[Record] = Crowd(MOST_RECORDS)

    def __len__(self) -> int:
        return len(self._crowd)

    def put(self, key: bytes, provider: Contact, where: Place, now: float) -> bool:
        """Whether there was room for it. One that is known already is kept anew."""
        self._forget_old(key, now)
        record = (key, provider.peer)
        known = self._kept.get(key, {})
        if provider.peer not in known:
            crowd = 0 if where.near else sum(one.area == where.area for _, _, one in known.values())
            if len(known) >= MOST_OF_KEY or crowd >= OF_AREA:
                return False
            for gone in self._crowd.enter(record, where):
                if gone == record:
                    return False
                self._drop(gone)
        kept = self._kept.setdefault(key, {})
        kept.pop(provider.peer, None)
        kept[provider.peer] = now + LIFE_SECONDS, provider, where
        return True

    def of(self, key: bytes, now: float) -> list[Contact]:
        """Those heard of last, first."""
        self._forget_old(key, now)
        return [one for _, one, _ in reversed(self._kept.get(key, {}).values())][:ANSWERED]

    def _forget_old(self, key: bytes, now: float) -> None:
        for peer, (until, _, _) in list(self._kept.get(key, {}).items()):
            if until > now:
                break  # the order is that of their end
            self._crowd.leave((key, peer))
            self._drop((key, peer))

    def _drop(self, record: Record) -> None:
        key, peer = record
        del self._kept[key][peer]
        if not self._kept[key]:
            del self._kept[key]
