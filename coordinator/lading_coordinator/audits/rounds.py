"""Anchors receipts on the chain, waits for randomness that came after, and notes which of them are to be checked.

Which randomness a round gets is fixed when its root is anchored: a beacon's round, or the blocks that follow. Where the
beacon stays silent, blocks that come after its last chance take its place.
"""

import asyncio
import logging
from collections.abc import Callable

import msgspec

from lading_contracts.court import AuditCourt
from lading_contracts.port import Block
from lading_coordinator.audits.beacons import Beacon, BeaconFailed
from lading_coordinator.audits.canaries import Canaries
from lading_coordinator.audits.conduct import Conduct
from lading_coordinator.audits.orders import Orders
from lading_coordinator.audits.records import MAX_LEAVES, Appointment, Drawn, Pick, Records, Round
from lading_coordinator.core.audits import Policy
from lading_coordinator.ledger import Ledger
from lading_protocol.audit import beacon as bound
from lading_protocol.audit import is_picked
from lading_protocol.keys import PrivateKey
from lading_protocol.transcript import merkle_root

log = logging.getLogger(__name__)
# Of a busy gateway's, one after the other: 64k receipts in half a minute.
ROUNDS_A_STEP = 16


class Timing(msgspec.Struct, frozen=True):
    """A beacon's round is out at least `delay` seconds after the anchor, and waited for `grace` seconds. `blocks` are
    combined where blocks serve."""

    delay: float = 30.0
    grace: float = 600.0
    blocks: int = 1


class Sources(msgspec.Struct, frozen=True):
    """What a round is made from: `beacon` None stands for blocks alone."""

    records: Records
    ledger: Ledger
    conduct: Conduct
    canaries: Canaries
    orders: Orders
    beacon: Beacon | None


class Rounds:
    """Each step is stored before and after it acts, so a crash repeats at most one anchor of the same root. What goes
    through all receipts of a round runs in a thread: some 40 ms in which no stream should stand still.

    `fresh` gives random bytes, `clock` Unix seconds.
    """

    def __init__(
        self,
        sources: Sources,
        court: AuditCourt,
        key: PrivateKey,
        policy: Policy,
        timing: Timing,
        *,
        clock: Callable[[], float],
        fresh: Callable[[int], bytes],
    ) -> None:
        self._sources = sources
        self._records = sources.records
        self._court = court
        self._key = key
        self._policy = policy
        self._timing = timing
        self._clock = clock
        self._fresh = fresh

    async def step(self) -> None:
        """Go on with every round as far as the chain lets it. Raises ChainError, LedgerFailed."""
        await self._sources.ledger.flush()
        for _ in range(ROUNDS_A_STEP):
            if not self._records.rounds("sealed"):
                await self._seal()
            sealed = self._records.rounds("sealed")
            stands = [await self._anchor(round_) for round_ in sealed]
            if not all(stands) or not any(round_.full for round_ in sealed):
                break
        for round_ in self._records.rounds("anchored"):
            drawn = await self._randomness(round_, self._records.appointment(round_.n))
            if drawn is not None:
                await asyncio.to_thread(self._draw, round_, drawn)

    async def _anchor(self, round_: Round) -> bool:
        """False where the chain went back meanwhile: the anchor is to be made again."""
        receipt = await self._court.anchor(self._key, round_.root, round_.leaves)
        block = await self._court.chain.block(receipt.block)
        if block is None:
            return False
        waits = self._appoint(block.timestamp, self._records.appointment(round_.n).secret)
        self._records.anchored(round_.n, receipt.block, waits)
        log.info("Round %d: %d leaves anchored in block %d", round_.n, round_.leaves, receipt.block)
        return True

    async def _seal(self) -> None:
        """Canaries are drawn like other receipts, so as many more are made as their host's rate will leave out."""
        conduct, canaries = self._sources.conduct, self._sources.canaries
        if canaries.host is not None:
            waiting = self._records.waiting()
            sealed = min(1, MAX_LEAVES / max(1, sum(count for _, count in waiting)))
            audits = sealed * sum(conduct.rate(host) * count for host, count in waiting) / 1e6
            canaries.make(audits * self._policy.rates.canary_ppm / conduct.rate(canaries.host))
        await asyncio.to_thread(self._records.seal, merkle_root, self._fresh(32))

    def _appoint(self, anchored_at: float, secret: bytes) -> Appointment:
        beacon = self._sources.beacon
        if beacon is None:
            return Appointment(secret=secret)
        number = beacon.round_at(anchored_at + self._timing.delay)
        return Appointment(beacon.name, number, beacon.time_of(number), secret)

    async def _randomness(self, round_: Round, waits: Appointment) -> Drawn | None:
        """None while it is not out."""
        beacon, now = self._sources.beacon, self._clock()
        if not waits.beacon:
            return await self._from_blocks(round_, round_.block)
        if now < waits.due:
            return None
        last_chance = waits.due + self._timing.grace
        if beacon is not None and beacon.name == waits.beacon and now < last_chance:
            try:
                value = await beacon.value(waits.round)
            except BeaconFailed as error:
                log.warning("Round %d waits for %s: %s", round_.n, waits.beacon, error)
                return None
            return Drawn(bound(round_.root, value), value, f"{waits.beacon} round {waits.round}")
        if now < last_chance:
            return None
        first = await self._first_block(round_.block, last_chance)
        return None if first is None else await self._from_blocks(round_, first.number)

    async def _from_blocks(self, round_: Round, after: int) -> Drawn | None:
        """The hashes of the blocks that follow block `after`, in order."""
        value = b""
        for number in range(after + 1, after + 1 + self._timing.blocks):
            block = await self._court.chain.block(number)
            if block is None:
                return None
            value += block.hash
        last = after + self._timing.blocks
        return Drawn(bound(round_.root, value), value, f"blocks {after + 1} to {last}")

    async def _first_block(self, known: int, moment: float) -> Block | None:
        """The first block with a time of at least `moment`, after block `known`; None while there is none."""
        head = await self._court.chain.block()
        if head is None or head.timestamp < moment:
            return None
        low, found = known, head
        while found.number - low > 1:
            middle = await self._court.chain.block((low + found.number) // 2)
            if middle is None:
                return None
            if middle.timestamp >= moment:
                found = middle
            else:
                low = middle.number
        return found

    def _draw(self, round_: Round, drawn: Drawn) -> None:
        rates: dict[bytes, int] = {}
        picks: list[Pick] = []
        rows = self._records.leaves(round_.n)
        for leaf, host, agent in rows:
            if host not in rates:
                rates[host] = self._sources.conduct.rate(host)
            if is_picked(drawn.randomness, leaf, rates[host]):
                picks.append(Pick(leaf, host, agent, "rate", rates[host]))
        picks += self._sources.orders.picks(round_.n)
        canaries = self._sources.canaries
        if canaries.host is not None:
            rate = self._sources.conduct.rate(canaries.host)
            picks += canaries.picks(round_.n, drawn.randomness, rate)
        self._records.drawn(round_.n, picks, drawn)
        log.info("Round %d: %s picked %d of %d receipts", round_.n, drawn.source, len(picks), len(rows))
