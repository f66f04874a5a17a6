"""The rows of rounds, audits and disputes: what an interrupted auditor needs to go on where it stopped."""

from collections.abc import Callable
from typing import Any

import msgspec

from lading_coordinator.core.audits import Asked, Opinion
from lading_coordinator.store import Statement, Store
from lading_protocol.audit import Verdict
from lading_protocol.ids import Address, AgentId, Digest
from lading_protocol.lots import canary_leaf, order_leaf, secret_leaf
from lading_protocol.messages import Finding
from lading_protocol.transcript import sha256

MAX_LEAVES = 4096  # receipts in a round: paths stay short
KEEP_ROUNDS = 10_000
_ORDERS = "select signer, leaf from orders "
_CANARIES = "select salt, leaf, fault from canaries "
_finding = msgspec.msgpack.Decoder(Finding)
_stakes = msgspec.msgpack.Decoder(dict[bytes, str])
_encode = msgspec.msgpack.Encoder().encode


class Round(msgspec.Struct, frozen=True):
    """`state`: sealed (leaves chosen), anchored (root on chain in `block`), drawn (picks made)."""

    n: int
    root: Digest
    leaves: int
    state: str
    block: int
    picked: int

    @property
    def full(self) -> bool:
        """Whether receipts may have been left for the next one."""
        return self.leaves > MAX_LEAVES  # a secret is among them


class Appointment(msgspec.Struct, frozen=True):
    """The randomness that a round waits for, fixed when its root was anchored: round `round` of a beacon, which is out
    at second `due`. No beacon: blocks after the anchor. `secret` is the round's own (core.audits.Question)."""

    beacon: str = ""
    round: int = 0
    due: float = 0.0
    secret: bytes = b""


class Drawn(msgspec.Struct, frozen=True):
    """What a round's randomness came from: `value` as the beacon gave it (or the blocks' hashes), `source` in words."""

    randomness: bytes
    value: bytes
    source: str


class Pick(msgspec.Struct, frozen=True):
    """A receipt to be checked. `why`: rate or bought; `rate` is what the host's was, in millionths."""

    leaf: bytes
    host: Address
    agent: AgentId
    why: str = "rate"
    rate: int = 0


class Turn(msgspec.Struct, frozen=True):
    """Who was drawn as an auditor, and out of whom."""

    turn: int
    auditor: Address
    stakes: dict[Address, int]


class Paper(msgspec.Struct, frozen=True):
    """What an auditor found, and when that was heard."""

    auditor: Address
    finding: Finding
    at: float


class Audit(msgspec.Struct, frozen=True):
    """`state`: pending, accused (to be brought to court), disputed, done; a canary's is "canary" once it is told."""

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

    def waiting(self) -> list[tuple[Address, int]]:
        """For each host how many receipts are in no round yet."""
        rows = self._store.rows(
            "select host, count(*) from parts where round is null and leaf is not null group by host"
        )
        return [(Address(host), count) for host, count in rows]

    def seal(self, root_of: Callable[[list[bytes]], Digest], secret: bytes) -> Round | None:
        """Put what is in no round yet into a new one: receipts, orders, canaries. None without receipts and orders.

        What others add meanwhile waits for the next one.
        """
        found = self._store.rows(
            "select job, attempt, leaf from parts where round is null and leaf is not null limit ?", (MAX_LEAVES,)
        )
        orders = self._store.rows(_ORDERS + "where round is null")
        canaries = self._store.rows(_CANARIES + "where round is null")
        if not found and not orders:
            return None
        last = self._store.row("select coalesce(max(n), 0) from rounds")
        n = (last[0] if last else 0) + 1
        leaves = sorted([leaf for _, _, leaf in found] + _beside(orders, canaries) + [secret_leaf(secret)])
        round_ = Round(n, root_of(leaves), len(leaves), "sealed", 0, 0)
        statements: list[Statement] = [
            ("insert into rounds values (?,?,?,'sealed',0,0,?)", (n, round_.root, len(leaves), self._clock())),
            ("insert or replace into draws (n, secret) values (?,?)", (n, secret)),
        ]
        statements += [("update orders set round=? where leaf=?", (n, leaf)) for _, leaf in orders]
        statements += [("update canaries set round=? where leaf=?", (n, leaf)) for _, leaf, _ in canaries]
        statements += [("update parts set round=? where job=? and attempt=?", (n, job, a)) for job, a, _ in found]
        self._store.write(statements)
        return round_

    def tree(self, n: int) -> list[bytes]:
        """All leaves of a round's root, in order."""
        receipts = [leaf for (leaf,) in self._store.rows("select leaf from parts where round=?", (n,))]
        orders = self._store.rows(_ORDERS + "where round=?", (n,))
        canaries = self._store.rows(_CANARIES + "where round=?", (n,))
        secret = self.appointment(n).secret
        return sorted([*receipts, *_beside(orders, canaries), *([secret_leaf(secret)] if secret else [])])

    def rounds(self, state: str) -> list[Round]:
        rows = self._store.rows(
            "select n, root, leaves, state, block, picked from rounds where state=? order by n", (state,)
        )
        return [Round(*row) for row in rows]

    def round(self, n: int) -> Round | None:
        row = self._store.row("select n, root, leaves, state, block, picked from rounds where n=?", (n,))
        return Round(*row) if row else None

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

    def anchored(self, n: int, block: int, waits: Appointment) -> None:
        self._store.write(
            [
                ("update rounds set state='anchored', block=? where n=?", (block, n)),
                ("insert or ignore into draws (n, secret) values (?,?)", (n, waits.secret)),
                (
                    "update draws set beacon=?, beacon_round=?, due=? where n=?",
                    (waits.beacon, waits.round, waits.due, n),
                ),
            ]
        )

    def appointment(self, n: int) -> Appointment:
        row = self._store.row("select beacon, beacon_round, due, secret from draws where n=?", (n,))
        return Appointment(*row) if row else Appointment()

    def source(self, n: int) -> tuple[bytes, str]:
        """The value that a round's randomness was made from, and where it came from in words."""
        row = self._store.row("select value, source from draws where n=?", (n,))
        return (row[0] or b"", row[1]) if row else (b"", "")

    def drawn(self, n: int, picks: list[Pick], drawn: Drawn) -> None:
        now = self._clock()
        statements: list[Statement] = []
        for pick in picks:
            audit = (pick.leaf, n, pick.host, pick.agent, drawn.randomness, now)
            statements += [
                ("insert or ignore into audits values (?,?,?,?,?,'pending',0,'',?)", audit),
                ("insert or ignore into picks values (?,?,?)", (pick.leaf, pick.why, pick.rate)),
            ]
        statements.append(("update draws set value=?, source=? where n=?", (drawn.value, drawn.source, n)))
        statements.append(("update rounds set state='drawn', picked=? where n=?", (len(picks), n)))
        statements.append(("delete from rounds where n <= ? and state='drawn'", (n - KEEP_ROUNDS,)))
        statements.append(("delete from draws where n not in (select n from rounds)", ()))
        old = "from canaries where round <= ?"
        statements.append((f"delete from openings where leaf in (select leaf {old})", (n - KEEP_ROUNDS,)))
        statements.append((f"delete {old}", (n - KEEP_ROUNDS,)))
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

    def audit(self, leaf: bytes) -> Audit | None:
        row = self._store.row(
            "select leaf, round, host, agent, randomness, state, verdict, reason, at from audits where leaf=?", (leaf,)
        )
        return _audit(row) if row else None

    def why(self, leaf: bytes) -> tuple[str, int]:
        """Why a receipt was picked, and at which rate (millionths)."""
        row = self._store.row("select why, rate from picks where leaf=?", (leaf,))
        return (row[0], row[1]) if row else ("rate", 0)

    def drew(self, leaf: bytes, turn: Turn) -> None:
        """An auditor was drawn. The pool is kept once for all audits that drew from the same."""
        body = _encode({who: str(stake) for who, stake in sorted(turn.stakes.items())})
        digest = sha256(body)
        self._store.write(
            [
                ("insert or ignore into pools values (?,?)", (digest, body)),
                (
                    "insert or replace into turns values (?,?,?,?,?)",
                    (leaf, turn.turn, turn.auditor, digest, self._clock()),
                ),
            ]
        )

    def turns(self, leaf: bytes) -> list[Turn]:
        rows = self._store.rows(
            "select t.turn, t.auditor, p.stakes from turns t join pools p on p.digest=t.pool where t.leaf=?"
            " order by t.turn",
            (leaf,),
        )
        return [
            Turn(turn, Address(who), {Address(one): int(stake) for one, stake in _stakes.decode(body).items()})
            for turn, who, body in rows
        ]

    def asked(self, leaf: bytes) -> Asked:
        """How often the host was asked for the sketch of this receipt."""
        row = self._store.row("select tries, at, opened from askings where leaf=?", (leaf,))
        return Asked(row[0], row[1], bool(row[2])) if row else Asked()

    def opening(self, leaf: bytes, *, opened: bool) -> None:
        """The host was asked for its sketch once more."""
        self._store.write(
            [
                (
                    "insert into askings values (?,1,?,?) on conflict (leaf) do update set tries=askings.tries+1,"
                    " opened=case when excluded.opened=1 then 1 else askings.opened end, at=excluded.at",
                    (leaf, int(opened), self._clock()),
                )
            ]
        )

    def papers(self, leaf: bytes) -> list[Paper]:
        rows = self._store.rows(
            "select p.auditor, p.finding, f.at from papers p join findings f"
            " on f.leaf=p.leaf and f.auditor=p.auditor where p.leaf=? order by f.at",
            (leaf,),
        )
        return [Paper(Address(who), _finding.decode(finding), at) for who, finding, at in rows]

    def findings(self, leaf: bytes) -> list[tuple[Address, int, str, str, float]]:
        return [
            (Address(auditor), verdict, code, reason, worst)
            for auditor, verdict, code, reason, worst in self._store.rows(
                "select auditor, verdict, code, reason, worst from findings where leaf=? order by at", (leaf,)
            )
        ]

    def heard(self, leaf: bytes, auditor: Address, finding: Finding) -> None:
        values = (leaf, auditor, finding.verdict, finding.code, finding.reason, finding.worst, self._clock())
        self._store.write(
            [
                ("insert or replace into findings values (?,?,?,?,?,?,?)", values),
                ("insert or replace into papers values (?,?,?)", (leaf, auditor, _encode(finding))),
            ]
        )

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


def _beside(orders: list[tuple[Any, ...]], canaries: list[tuple[Any, ...]]) -> list[bytes]:
    """The leaves that are no receipts of jobs."""
    return [
        *(order_leaf(leaf, signer) for signer, leaf in orders),
        *(leaf for _, leaf, _ in canaries),
        *(canary_leaf(salt, leaf, fault) for salt, leaf, fault in canaries),
    ]


def _audit(row: tuple[Any, ...]) -> Audit:
    leaf, n, host, agent, randomness, state, verdict, reason, at = row
    return Audit(leaf, n, Address(host), AgentId(agent), randomness, state, Verdict(verdict), reason, at)
