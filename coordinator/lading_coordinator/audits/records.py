"""The rows of rounds, audits and disputes: what an interrupted auditor needs to go on where it stopped."""

from collections.abc import Callable
from typing import Any

import msgspec

from lading_coordinator.core.audits import Opinion
from lading_coordinator.store import Statement, Store
from lading_protocol.audit import Verdict
from lading_protocol.ids import Address, AgentId, Digest
from lading_protocol.messages import Finding

MAX_LEAVES = 4096
KEEP_ROUNDS = 10_000


class Round(msgspec.Struct, frozen=True):
    """`state`: sealed (leaves chosen), anchored (root on chain in `block`), drawn (picks made)."""

    n: int
    root: Digest
    leaves: int
    state: str
    block: int
    picked: int


class Audit(msgspec.Struct, frozen=True):
    """`state`: pending, accused (to be brought to court), disputed, done."""

    leaf: bytes
    round: int
    host: Address
    agent: AgentId
    randomness: bytes
    state: str
    verdict: Verdict
    reason: str
    at: float


class DisputeRow(msgspec.Struct, frozen=True):
    """`state`: open until the court has closed or voided it."""

    id: Digest
    leaf: bytes
    host: Address
    state: str
    note: str
    at: float


class Records:
    """`clock` gives Unix seconds."""

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock

    # Rounds

    def seal(self, root_of: Callable[[list[bytes]], Digest]) -> Round | None:
        """Put all receipts that are in no round into a new one; None when there are none."""
        found = self._store.rows(
            "select job, attempt, leaf from parts where round is null and leaf is not null limit ?", (MAX_LEAVES,)
        )
        if not found:
            return None
        leaves = sorted(leaf for _, _, leaf in found)
        last = self._store.row("select coalesce(max(n), 0) from rounds")
        n = (last[0] if last else 0) + 1
        round_ = Round(n, root_of(leaves), len(leaves), "sealed", 0, 0)
        statements: list[Statement] = [
            ("insert into rounds values (?,?,?,'sealed',0,0,?)", (n, round_.root, len(leaves), self._clock()))
        ]
        statements += [("update parts set round=? where job=? and attempt=?", (n, job, a)) for job, a, _ in found]
        self._store.write(statements)
        return round_

    def rounds(self, state: str) -> list[Round]:
        rows = self._store.rows(
            "select n, root, leaves, state, block, picked from rounds where state=? order by n", (state,)
        )
        return [Round(*row) for row in rows]

    def recent_rounds(self, count: int) -> list[Round]:
        rows = self._store.rows(
            "select n, root, leaves, state, block, picked from rounds order by n desc limit ?", (count,)
        )
        return [Round(*row) for row in rows]

    def leaves(self, n: int) -> list[tuple[bytes, Address, AgentId]]:
        rows = self._store.rows(
            "select p.leaf, p.host, j.agent from parts p join jobs j on j.job=p.job where p.round=? order by p.leaf",
            (n,),
        )
        return [(leaf, Address(host), AgentId(agent)) for leaf, host, agent in rows]

    def anchored(self, n: int, block: int) -> None:
        self._store.write([("update rounds set state='anchored', block=? where n=?", (block, n))])

    def drawn(self, n: int, picks: list[tuple[bytes, Address, AgentId]], randomness: bytes) -> None:
        now = self._clock()
        statements: list[Statement] = [
            (
                "insert or ignore into audits values (?,?,?,?,?,'pending',0,'',?)",
                (leaf, n, host, agent, randomness, now),
            )
            for leaf, host, agent in picks
        ]
        statements.append(("update rounds set state='drawn', picked=? where n=?", (len(picks), n)))
        statements.append(("delete from rounds where n <= ? and state='drawn'", (n - KEEP_ROUNDS,)))
        self._store.write(statements)

    # Audits

    def audits(self, state: str | None = None, count: int = 1000) -> list[Audit]:
        """Newest first; all states when none is named."""
        where, values = ("where state=?", (state, count)) if state else ("", (count,))
        rows = self._store.rows(
            f"select leaf, round, host, agent, randomness, state, verdict, reason, at from audits {where}"
            " order by at desc limit ?",
            values,
        )
        return [_audit(row) for row in rows]

    def opinions(self, leaf: bytes) -> list[Opinion]:
        rows = self._store.rows("select auditor, verdict from findings where leaf=? order by at", (leaf,))
        return [Opinion(Address(auditor), Verdict(verdict)) for auditor, verdict in rows]

    def findings(self, leaf: bytes) -> list[tuple[Address, int, str, str, float]]:
        return [
            (Address(auditor), verdict, code, reason, worst)
            for auditor, verdict, code, reason, worst in self._store.rows(
                "select auditor, verdict, code, reason, worst from findings where leaf=? order by at", (leaf,)
            )
        ]

    def heard(self, leaf: bytes, auditor: Address, finding: Finding) -> None:
        values = (leaf, auditor, finding.verdict, finding.code, finding.reason, finding.worst, self._clock())
        self._store.write([("insert or replace into findings values (?,?,?,?,?,?,?)", values)])

    def conclude(self, leaf: bytes, state: str, verdict: Verdict, reason: str) -> None:
        values = (state, int(verdict), reason, self._clock(), leaf)
        self._store.write([("update audits set state=?, verdict=?, reason=?, at=? where leaf=?", values)])

    # Disputes

    def opened(self, id_: Digest, audit: Audit) -> None:
        now = self._clock()
        self._store.write(
            [
                (
                    "insert into disputes values (?,?,?,'open','',?)"
                    " on conflict (id) do update set leaf=excluded.leaf, state='open', note='', at=excluded.at",
                    (id_, audit.leaf, audit.host, now),
                ),
                ("update audits set state='disputed' where leaf=?", (audit.leaf,)),
            ]
        )

    def disputes(self, *, only_open: bool = False, count: int = 1000) -> list[DisputeRow]:
        where = "where state='open'" if only_open else ""
        rows = self._store.rows(
            f"select id, leaf, host, state, note, at from disputes {where} order by at desc limit ?", (count,)
        )
        return [DisputeRow(Digest(i), leaf, Address(host), state, note, at) for i, leaf, host, state, note, at in rows]

    def dispute(self, id_: bytes) -> DisputeRow | None:
        row = self._store.row("select id, leaf, host, state, note, at from disputes where id=?", (id_,))
        return DisputeRow(*row) if row else None

    def note(self, id_: Digest, state: str, note: str) -> None:
        self._store.write([("update disputes set state=?, note=?, at=? where id=?", (state, note, self._clock(), id_))])


def _audit(row: tuple[Any, ...]) -> Audit:
    leaf, n, host, agent, randomness, state, verdict, reason, at = row
    return Audit(leaf, n, Address(host), AgentId(agent), randomness, state, Verdict(verdict), reason, at)
