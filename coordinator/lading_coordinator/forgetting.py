"""What the ledger forgets: evidence first, bare records much later, and never what an audit may still need.

It goes from the oldest job on, a piece at a time, so that no statement takes longer with a longer ledger, and remembers
how far it came: what was forgotten once is not looked at again. Then audits go in the same way, but for those that
found somebody guilty: these are few, and what they say counts for good.
"""

import logging
from collections.abc import Sequence
from typing import Any

import msgspec

from lading_coordinator.store import Store
from lading_protocol.audit import Verdict

log = logging.getLogger(__name__)
# Jobs in a piece, and those that ended in the same moment as the last of them.
PIECE = 500
# Jobs whose evidence is due, but may still be needed. With more, evidence waits: the chain must be away.
MOST_HELD = 10_000
# Some of what audits leave behind is little, and no index finds the oldest of it.
SELDOM_SECONDS = 3600.0
_SETTLED = f"state in ('done', 'canary') and verdict <> {int(Verdict.GUILTY)}"
_OF_AUDITS = ("findings", "papers", "picks", "askings", "audit_fees", "orders", "turns", "audits")
_NEEDED = (
    "job in (select p.job from parts p join audits a on a.round=p.round and a.leaf=p.leaf"
    " where a.state in ('pending', 'accused')"
    " union select o.job from orders o join audits a on a.leaf=o.leaf"
    " where a.state in ('pending', 'accused') and o.job is not null)"
    " or exists (select 1 from parts p where p.job=jobs.job and p.round is null and p.leaf is not null)"
)


class Retention(msgspec.Struct, frozen=True):
    """Seconds for which requests and tokens are kept for audits, and for which the bare records are kept."""

    evidence: float = 2 * 86_400.0
    records: float = 90 * 86_400.0


def piece(store: Store, after: float, before: float) -> float | None:
    """When the last job ended of the next few that ended between the two; None where there is none."""
    sql = "select max(ended) from (select ended from jobs where ended > ? and ended < ? order by ended limit ?) e"
    row = store.row(sql, (after, before, PIECE))
    return row[0] if row else None


class Forgetting:
    def __init__(self, store: Store, retention: Retention) -> None:
        self._store = store
        self._retention = retention
        self._forgotten = 0.0  # the end of the last job whose evidence was due
        self._held: list[bytes] = []  # of those, who keep theirs
        self._gone = 0.0  # the same for records, in this turn
        self._beside_at = 0.0

    def begin(self, now: float) -> None:
        """Before the first step of a turn, in which what was held is looked at again. Raises LedgerFailed."""
        held, self._held, self._gone = self._held, [], 0.0
        try:
            while held:
                self._held += self._drop_evidence("job=?", (held[-1],))
                held.pop()
        finally:
            self._held += held
        if now - self._beside_at >= SELDOM_SECONDS:
            self._drop_beside(now - self._retention.records)
            self._beside_at = now

    def step(self, now: float) -> bool:
        """One piece. Whether there may be more. Raises LedgerFailed."""
        due = piece(self._store, self._forgotten, now - self._retention.evidence)
        if due is not None and len(self._held) < MOST_HELD:
            self._held += self._drop_evidence("ended > ? and ended <= ?", (self._forgotten, due))
            self._forgotten = due
            if len(self._held) >= MOST_HELD:
                log.warning("The evidence of %d old jobs is still needed: is the chain away?", len(self._held))
            return True
        old = piece(self._store, self._gone, now - self._retention.records)
        if old is None:
            return self._drop_audits(now - self._retention.records)
        bare = "ended > ? and ended <= ? and request is null"
        span = (self._gone, old)
        self._store.write(
            [
                (f"delete from parts where job in (select job from jobs where {bare})", span),
                (f"delete from jobs where {bare}", span),
            ]
        )
        self._gone = old
        return True

    def _drop_evidence(self, where: str, values: Sequence[Any]) -> list[bytes]:
        """Who keeps theirs."""
        without = f"(select job from jobs where {where} and request is null)"
        self._store.write(
            [
                (
                    f"update jobs set request=null, emitted=null, vectors=null"
                    f" where {where} and request is not null and not ({_NEEDED})",
                    values,
                ),
                (f"delete from openings where leaf in (select leaf from parts where job in {without})", values),
                (f"delete from marks where job in {without}", values),
            ]
        )
        rows = self._store.rows(f"select job from jobs where {where} and request is not null", values)
        return [job for (job,) in rows]

    def _drop_audits(self, before: float) -> bool:
        """A piece of them, with what belongs to them. Whether there may be more."""
        oldest = f"select at from audits where at < ? and {_SETTLED} order by at limit ?"
        row = self._store.row(f"select max(at) from ({oldest}) e", (before, PIECE))
        if row is None or row[0] is None:
            return False
        gone = f"select leaf from audits where at <= ? and {_SETTLED}"
        self._store.write([(f"delete from {table} where leaf in ({gone})", (row[0],)) for table in _OF_AUDITS])
        return True

    def _drop_beside(self, before: float) -> None:
        self._store.write(
            [
                ("delete from openings where leaf in (select leaf from canaries where state<>'made')", ()),
                ("delete from orders where at < ? and leaf not in (select leaf from audits)", (before,)),
                ("delete from turns where at < ?", (before,)),
                ("delete from pools where digest not in (select pool from turns)", ()),
            ]
        )
