"""Audits that a payer asks for: of its own jobs, so many an epoch, drawn with the randomness of a later round.

That later randomness names the auditors, so that a payer cannot choose among its jobs until friends are drawn.
"""

from collections.abc import Callable

import msgspec

from lading_coordinator.audits.records import Pick, Records
from lading_coordinator.core.standing import Seat
from lading_coordinator.errors import ApiError
from lading_coordinator.ledger import Ledger
from lading_coordinator.store import Store
from lading_protocol.ids import Address, AgentId, Wei, to_hex
from lading_protocol.transcript import sha256

AN_EPOCH = 10
# No coin moves for an order yet: an auditor's reward comes from the court, and the number of orders is bounded instead.
PRICE = Wei(0)


class Ordered(msgspec.Struct, frozen=True):
    """`left` more may be ordered in this epoch. `receipts` are the leaves that are or were checked."""

    receipts: tuple[bytes, ...]
    price: Wei
    left: int


class Orders:
    """`epoch` is in seconds, `clock` gives Unix seconds. A coordinator that does not audit is not `open` for orders."""

    def __init__(
        self,
        store: Store,
        ledger: Ledger,
        records: Records,
        clock: Callable[[], float],
        epoch: float = 86_400.0,
        *,
        open: bool = True,
    ) -> None:
        self._open = open
        self._store = store
        self._ledger = ledger
        self._records = records
        self._clock = clock
        self._epoch = epoch

    async def buy(self, seat: Seat, job: bytes) -> Ordered:
        """Have a job audited; asking twice orders once. Raises ApiError."""
        if not self._open:
            raise ApiError(503, "no_audits", "This coordinator does not audit.", hint="Order at one that does.")
        row = await self._ledger.job(job)
        if row is None or row.signer != seat.key.address:
            raise ApiError(
                404,
                "unknown_job",
                f"No job {to_hex(job)} was paid by this API key's session.",
                hint="Use the API key that the job was asked with.",
            )
        leaves = tuple(sha256(part.receipt) for part in row.parts if part.receipt)
        new = [leaf for leaf in leaves if self._records.audit(leaf) is None and not self._ordered(leaf)]
        if not leaves or any(self._ledger.case(leaf, job) is None for leaf in new):
            raise ApiError(
                409,
                "no_evidence",
                f"Job {to_hex(job)} cannot be audited: its receipts or its evidence are not kept.",
                hint="Order within two days of the job.",
            )
        left = self._left(seat.key.address)
        if len(new) > left:
            wait = int(self._epoch - self._clock() % self._epoch) + 1
            raise ApiError(
                429,
                "too_many_audits",
                f"This session may order {AN_EPOCH} audits an epoch, {left} are left and this job needs {len(new)}.",
                hint=f"The next epoch begins in {wait} s.",
                retry_after=wait,
            )
        now = self._clock()
        self._store.write(
            [("insert or ignore into orders values (?,?,null,?,?)", (leaf, seat.key.address, now, job)) for leaf in new]
        )
        return Ordered(leaves, PRICE, left - len(new))

    def picks(self, n: int) -> list[Pick]:
        """What was ordered before round `n` was sealed, and is drawn with its randomness."""
        rows = self._store.rows(
            "select o.leaf, p.host, j.agent from orders o join parts p on p.job=o.job and p.leaf=o.leaf"
            " join jobs j on j.job=o.job where o.round=?",
            (n,),
        )
        return [Pick(leaf, Address(host), AgentId(agent), "bought", 1_000_000) for leaf, host, agent in rows]

    def waiting(self, leaf: bytes) -> bool:
        """Whether an audit is ordered whose randomness is not drawn yet."""
        return self._ordered(leaf) and self._records.audit(leaf) is None

    def _ordered(self, leaf: bytes) -> bool:
        return self._store.row("select 1 from orders where leaf=?", (leaf,)) is not None

    def _left(self, signer: Address) -> int:
        since = self._clock() // self._epoch * self._epoch
        row = self._store.row("select count(*) from orders where signer=? and at >= ?", (signer, since))
        return max(AN_EPOCH - (row[0] if row else 0), 0)
