"""The gossip streams to our neighbours: one each, opened by us; those that they open are heard elsewhere.

Gossip may be lost, so nobody is waited for: what a neighbour does not take in time it misses. Decides nothing.
"""

from __future__ import annotations

from collections import Counter

from lading_net.core.rpc import MESHSUB
from lading_net.direct import DirectLink, DirectStream
from lading_net.errors import NetError
from lading_protocol.ids import Address

MOST_QUEUED = 512 * 1024
MOST_EARLY = 32
"""Bytes that may wait for one neighbour, and messages for one whose stream is not open yet."""


class Voice:
    """Speaks to one neighbour over one link."""

    def __init__(self, link: DirectLink) -> None:
        self.link = link
        self._early: list[bytes] = []
        self._stream: DirectStream | None = None

    async def open(self) -> None:
        """Raises NetError."""
        stream = await self.link.open(MESHSUB)
        stream.watch(lambda: self._answered(stream))
        self._stream = stream
        for data in self._early:
            stream.write(data)
        self._early.clear()

    def say(self, data: bytes) -> bool:
        """False where it is lost."""
        stream = self._stream
        if stream is None:
            if len(self._early) >= MOST_EARLY:
                return False
            self._early.append(data)
            return True
        if stream.flow.queued > MOST_QUEUED:
            return False
        try:
            stream.write(data)
        except NetError:  # the link is about to be missed, or the peer speaks no gossip
            return False
        return True

    def close(self) -> None:
        if self._stream is not None:
            self._stream.reset()

    def _answered(self, stream: DirectStream) -> None:
        """Nothing is said to us on our own streams; reading lets the name's refusal show, and its credit go back."""
        try:
            while stream.poll():
                pass
        except NetError:
            pass


class Voices:
    """By neighbour. `lost` counts what each of them missed, together."""

    def __init__(self) -> None:
        self.lost: Counter[str] = Counter()
        self._of: dict[Address, Voice] = {}

    def __contains__(self, peer: Address) -> bool:
        return peer in self._of

    def __len__(self) -> int:
        return len(self._of)

    def peers(self) -> list[Address]:
        return list(self._of)

    def put(self, peer: Address, voice: Voice) -> None:
        if (older := self._of.get(peer)) is not None:
            older.close()
        self._of[peer] = voice

    def drop(self, peer: Address, link: DirectLink) -> bool:
        """Whether it was this link that we spoke over."""
        if (voice := self._of.get(peer)) is None or voice.link is not link:
            return False
        del self._of[peer]
        return True

    def say(self, peers: tuple[Address, ...], data: bytes) -> None:
        for peer in peers:
            if (voice := self._of.get(peer)) is not None and not voice.say(data):
                self.lost["queued"] += 1
