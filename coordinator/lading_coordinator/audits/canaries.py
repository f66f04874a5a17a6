"""Keeps canaries: makes them from what was served, has them anchored before anybody is asked, tells them afterwards."""

import logging
from collections.abc import Callable

import msgspec

from lading.dispatch import Directory
from lading_coordinator.audits.records import Pick
from lading_coordinator.core.canary import Canary, Setting, fits, make
from lading_coordinator.ledger import Ledger
from lading_coordinator.store import Store
from lading_protocol.eip712 import Domain, unpack
from lading_protocol.ids import Address, AgentId
from lading_protocol.keys import PrivateKey
from lading_protocol.lots import canary_leaf
from lading_protocol.messages import Case
from lading_protocol.offers import KnownOffer
from lading_protocol.receipts import Receipt, receipt_leaf

log = logging.getLogger(__name__)
MOST_AT_ONCE = 4
LOOKED_AT = 64
_case = msgspec.msgpack.Decoder(Case)
_encode = msgspec.msgpack.Encoder().encode


class Told(msgspec.Struct, frozen=True):
    """What a canary was. Its commitment, which was anchored, follows: see lots.canary_leaf."""

    fault: str
    salt: bytes
    commitment: bytes


class Canaries:
    """`key` is the operator whose name they go under; None: there are none. `fresh` gives random bytes."""

    def __init__(
        self,
        store: Store,
        ledger: Ledger,
        directory: Directory,
        key: PrivateKey | None,
        domain: Domain,
        clock: Callable[[], float],
        fresh: Callable[[int], bytes],
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._directory = directory
        self._key = key
        self._domain = domain
        self._clock = clock
        self._fresh = fresh

    def make(self, expected: float) -> int:
        """Make about `expected` canaries for the next round; how many there are now. Raises LedgerFailed."""
        if self._key is None or expected <= 0:
            return 0
        chance = int.from_bytes(self._fresh(8), "big") / 2**64
        made = [self._one() for _ in range(min(int(expected + chance), MOST_AT_ONCE))]
        return sum(made)

    def _one(self) -> bool:
        assert self._key is not None
        served = self._served()
        while served:
            leaf = served.pop(int.from_bytes(self._fresh(8), "big") % len(served))
            case = self._ledger.case(leaf)
            if case is None:
                continue
            receipt = unpack(Receipt, case.receipt).value
            offer = self._offer(AgentId(receipt.agent))
            if offer is not None and receipt.host != self._key.address and fits(case, receipt):
                setting = Setting(self._key, offer.offer, self._domain, int(self._clock()))
                self._keep(make(case, receipt, setting, self._fresh(32)))
                return True
        return False

    def _served(self) -> list[bytes]:
        """Receipts whose request no auditor has seen, newest first."""
        rows = self._store.rows(
            "select p.leaf from jobs j join parts p on p.job=j.job where j.request is not null and p.leaf is not null"
            " and p.first=0 and p.leaf not in (select leaf from audits) order by j.ended desc limit ?",
            (LOOKED_AT,),
        )
        return [leaf for (leaf,) in rows]

    def _offer(self, agent: AgentId) -> KnownOffer | None:
        assert self._key is not None
        mine = [one for one in self._directory.offers(agent) if one.host == self._key.address]
        return mine[0] if mine else None

    def _keep(self, canary: Canary) -> None:
        row = (
            receipt_leaf(canary.receipt),
            self._fresh(32),
            canary.fault,
            _encode(canary.case),
            self._clock(),
        )
        self._store.write([("insert into canaries values (?,?,?,?,null,'made',?)", row)])
        if canary.sketch:
            self._ledger.keep_opening(row[0], canary.sketch)  # as if its host had opened it

    def picks(self, n: int) -> list[Pick]:
        """Those of a round: all of them are asked about."""
        found = []
        for leaf, evidence in self._store.rows("select leaf, evidence from canaries where round=?", (n,)):
            receipt = unpack(Receipt, _case.decode(evidence).receipt).value
            found.append(Pick(leaf, Address(receipt.host), AgentId(receipt.agent), "canary", 1_000_000))
        return found

    def case(self, leaf: bytes) -> Case | None:
        row = self._store.row("select evidence from canaries where leaf=?", (leaf,))
        return _case.decode(row[0]) if row else None

    def tell(self, leaf: bytes) -> None:
        """All auditors of this one have answered: from now on it is shown for what it is."""
        self._store.write([("update canaries set state='told' where leaf=?", (leaf,))])

    def told(self, leaf: bytes) -> Told | None:
        row = self._store.row("select fault, salt from canaries where leaf=? and state='told'", (leaf,))
        return Told(row[0], row[1], canary_leaf(row[1], leaf, row[0])) if row else None
