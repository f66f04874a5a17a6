"""Keeps canaries: makes them from what was served, has them anchored before anybody is asked, tells them afterwards."""

import logging
from collections.abc import Callable

import msgspec

from lading.dispatch import Directory
from lading_coordinator.audits.records import Pick
from lading_coordinator.core.canary import Canary, Setting, fits, make
from lading_coordinator.ledger import JobRow, Ledger, PartRow
from lading_coordinator.store import Store
from lading_protocol.audit import is_picked
from lading_protocol.eip712 import Domain, unpack
from lading_protocol.ids import Address, AgentId, Wei
from lading_protocol.keys import PrivateKey
from lading_protocol.lots import canary_leaf
from lading_protocol.messages import Case
from lading_protocol.offers import KnownOffer
from lading_protocol.receipts import Receipt, receipt_leaf

log = logging.getLogger(__name__)
MOST_AT_ONCE = 64
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
        """Make about `expected` canaries for the next round; how many were made. Raises LedgerFailed."""
        if self._key is None or expected <= 0:
            return 0
        chance = int.from_bytes(self._fresh(8), "big") / 2**64
        made = [self._one() for _ in range(min(int(expected + chance), MOST_AT_ONCE))]
        return sum(made)

    def _one(self) -> bool:
        assert self._key is not None
        served = self._served()
        while served:
            leaf, job = served.pop(int.from_bytes(self._fresh(8), "big") % len(served))
            case = self._ledger.case(leaf, job)
            if case is None:
                continue
            signed = unpack(Receipt, case.receipt)
            receipt = signed.value
            offer = self._offer(AgentId(receipt.agent))
            if offer is not None and receipt.host != self._key.address and fits(case, receipt):
                setting = Setting(self._key, offer.offer, self._domain, int(self._clock()))
                self._keep(make(case, signed, setting, self._fresh(32)))
                return True
        return False

    def _served(self) -> list[tuple[bytes, bytes]]:
        """Receipts, and their jobs, whose request no auditor has seen, newest first."""
        rows = self._store.rows(
            "select p.leaf, p.job from jobs j join parts p on p.job=j.job where j.request is not null"
            " and p.leaf is not null and p.first=0 and p.leaf not in (select leaf from audits)"
            " order by j.ended desc limit ?",
            (LOOKED_AT,),
        )
        return [(leaf, job) for leaf, job in rows]

    def _offer(self, agent: AgentId) -> KnownOffer | None:
        assert self._key is not None
        mine = [one for one in self._directory.offers(agent) if one.host == self._key.address]
        return mine[0] if mine else None

    def _keep(self, canary: Canary) -> None:
        row = (
            receipt_leaf(canary.receipt),
            canary.receipt.value.job,
            self._fresh(32),
            canary.fault,
            _encode(canary.case),
            self._clock(),
        )
        self._store.write([("insert into canaries values (?,?,?,?,?,null,'made',?)", row)])
        if canary.sketch:
            self._ledger.keep_opening(row[0], canary.sketch)  # as if its host had opened it

    def picks(self, n: int, randomness: bytes, rate_ppm: int) -> list[Pick]:
        """Those of a round that its randomness picks, at the rate of their host: as with any other receipt."""
        found = []
        for leaf, evidence in self._store.rows("select leaf, evidence from canaries where round=?", (n,)):
            if is_picked(randomness, leaf, rate_ppm):
                receipt = unpack(Receipt, _case.decode(evidence).receipt).value
                found.append(Pick(leaf, Address(receipt.host), AgentId(receipt.agent), "rate", rate_ppm))
        return found

    @property
    def host(self) -> Address | None:
        """The operator under whose name they go."""
        return self._key.address if self._key is not None else None

    def job(self, job: bytes) -> JobRow | None:
        """A canary as if it were a job on record: who asks for it must learn nothing."""
        row = self._store.row("select evidence, at from canaries where job=?", (job,))
        if row is None:
            return None
        case = _case.decode(row[0])
        value = unpack(Receipt, case.receipt).value
        part = PartRow(
            value.attempt,
            Address(value.host),
            value.first,
            value.output_tokens,
            Wei(value.amount),
            case.receipt,
            case.marks,
        )
        return JobRow(
            job,
            AgentId(value.agent),
            Address(value.signer),
            value.finish,
            value.prompt_tokens,
            value.output_tokens,
            Wei(value.amount),
            row[1],
            (part,),
        )

    def case(self, leaf: bytes) -> Case | None:
        row = self._store.row("select evidence from canaries where leaf=?", (leaf,))
        return _case.decode(row[0]) if row else None

    def tell(self, leaf: bytes) -> None:
        """All auditors of this one have answered: from now on it is shown for what it is."""
        self._store.write([("update canaries set state='told' where leaf=?", (leaf,))])

    def told(self, leaf: bytes) -> Told | None:
        row = self._store.row("select fault, salt from canaries where leaf=? and state='told'", (leaf,))
        return Told(row[0], row[1], canary_leaf(row[1], leaf, row[0])) if row else None
