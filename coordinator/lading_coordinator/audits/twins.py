"""Two different final receipts of one host for one attempt: kept as proof, and the host gets no jobs here any more.

The court takes one receipt and has jurors run it again; it has no verb for two. So this is reported, not slashed.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from lading_coordinator.errors import ApiError, bad_request
from lading_coordinator.store import Store
from lading_protocol.conduct import contradiction
from lading_protocol.eip712 import Domain, unpack
from lading_protocol.errors import BadMessage
from lading_protocol.ids import Address
from lading_protocol.receipts import Receipt, SignedReceipt

MAX_KEPT = 10_000


class Twin(msgspec.Struct, frozen=True):
    """`one` and `other` are packed receipts."""

    host: Address
    job: bytes
    attempt: int
    one: bytes
    other: bytes
    at: float


class Twins:
    """`domain` is the audit court's, `clock` gives Unix seconds."""

    def __init__(self, store: Store, domain: Domain, clock: Callable[[], float]) -> None:
        self._store = store
        self._domain = domain
        self._clock = clock

    def report(self, one: bytes, other: bytes) -> Twin:
        """Keep two packed receipts if they prove something; anybody may bring them. Raises ApiError."""
        first, second = _receipt(one), _receipt(other)
        if refusal := contradiction(first, second, self._domain):
            raise bad_request(f"These receipts prove nothing: {refusal}.", param="receipts", code="no_proof")
        value = first.value
        held = self._store.row("select count(*) from twins")
        if held is not None and held[0] >= MAX_KEPT:
            raise ApiError(503, "too_many_reports", "No more reports are kept here.", hint="Tell the operator.")
        row = (value.host, value.job, value.attempt, one, other, self._clock())
        self._store.write([("insert or ignore into twins values (?,?,?,?,?,?)", row)])
        return Twin(Address(value.host), *row[1:])

    def all(self, count: int) -> list[Twin]:
        """Newest first."""
        rows: list[tuple[Any, ...]] = self._store.rows(
            "select host, job, attempt, one, other, at from twins order by at desc limit ?", (count,)
        )
        return [Twin(*row) for row in rows]


def _receipt(packed: bytes) -> SignedReceipt:
    try:
        return unpack(Receipt, packed)
    except BadMessage as error:
        raise bad_request(f"Not a receipt: {error.message}", param="receipts") from None
