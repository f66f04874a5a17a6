"""Anchors receipts on the chain, waits for randomness that came after, and notes which of them are to be checked."""

import logging

from lading_contracts.court import AuditCourt
from lading_coordinator.audits.records import Records
from lading_coordinator.core.audits import Policy, picked
from lading_coordinator.ledger import Ledger
from lading_protocol.audit import beacon
from lading_protocol.ids import Digest
from lading_protocol.keys import PrivateKey
from lading_protocol.transcript import merkle_root

log = logging.getLogger(__name__)


class Rounds:
    """Each step is stored before and after it acts, so a crash repeats at most one anchor of the same root."""

    def __init__(self, records: Records, ledger: Ledger, court: AuditCourt, key: PrivateKey, policy: Policy) -> None:
        self._records = records
        self._ledger = ledger
        self._court = court
        self._key = key
        self._policy = policy

    async def step(self) -> None:
        """Go on with every round as far as the chain lets it. Raises ChainError, LedgerFailed."""
        await self._ledger.flush()
        if not self._records.rounds("sealed"):
            self._records.seal(merkle_root)
        for round_ in self._records.rounds("sealed"):
            receipt = await self._court.anchor(self._key, round_.root, round_.leaves)
            self._records.anchored(round_.n, receipt.block)
            log.info("Round %d: %d receipts anchored in block %d", round_.n, round_.leaves, receipt.block)
        for round_ in self._records.rounds("anchored"):
            block = await self._court.chain.block(round_.block + self._policy.beacon_blocks)
            if block is not None:
                self._draw(round_.n, round_.root, block.hash)

    def _draw(self, n: int, root: Digest, block_hash: bytes) -> None:
        randomness = beacon(root, block_hash)
        rows = self._records.leaves(n)
        chosen = set(picked([leaf for leaf, _, _ in rows], randomness, self._policy))
        picks = [row for row in rows if row[0] in chosen]
        self._records.drawn(n, picks, randomness)
        log.info("Round %d: randomness picked %d of %d receipts", n, len(picks), len(rows))
