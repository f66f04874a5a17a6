"""What is shown of audits: the list of the newest, and the whole record of one job (lading.core.audit_record).

Nobody's prompt or answer is in it. What would tell an auditor which receipts are canaries is shown only afterwards.
"""

from collections.abc import Callable
from math import isinf
from typing import TYPE_CHECKING, Any

import msgspec

from lading.core.audit_record import (
    Attempt,
    AuditRecord,
    Court,
    HostNow,
    Limits,
    Look,
    Opening,
    Round,
    State,
)
from lading_contracts.court import AuditCourt
from lading_contracts.errors import ChainError
from lading_coordinator.audits.canaries import Canaries
from lading_coordinator.audits.conduct import Conduct
from lading_coordinator.audits.orders import Ordered, Orders
from lading_coordinator.audits.records import Audit, Records
from lading_coordinator.audits.twins import Twins
from lading_coordinator.core.audits import OPENING_TRIES
from lading_coordinator.errors import ApiError
from lading_coordinator.ledger import JobRow, Ledger, PartRow
from lading_protocol.audit import Tolerance, Verdict
from lading_protocol.ids import Address, AgentId, Wei, to_hex
from lading_protocol.lots import order_leaf
from lading_protocol.proofs import path
from lading_protocol.transcript import sha256

if TYPE_CHECKING:
    from lading_coordinator.http.views import Views

Tree = dict[str, Any]
MOST_DISPUTES = 1000


class AuditParts(msgspec.Struct, frozen=True):
    """What the views of audits look at. A pending audit is given up after `hold` seconds, a host is asked for its
    sketch again after `pause`. `limits` are those of an agent and a numeric class, `paid` what each auditor got in the
    last `epoch` seconds."""

    records: Records
    ledger: Ledger
    conduct: Conduct
    canaries: Canaries
    orders: Orders
    twins: Twins
    court: AuditCourt
    hold: float
    pause: float
    epoch: float
    limits: Callable[[AgentId, str], Tolerance | None]
    paid: Callable[[], dict[Address, Wei]]


class AuditViews:
    def __init__(self, views: "Views") -> None:
        self._views = views
        self._parts = views.parts.audits

    def listing(self, count: int) -> Tree:
        """The newest rounds, audits, disputes, twins, and what there is to say of auditors."""
        parts = self._parts
        rounds = [
            {"round": r.n, "root": to_hex(r.root), "leaves": r.leaves, "state": r.state, "block": r.block}
            | {"picked": r.picked, "source": parts.records.source(r.n)[1]}
            for r in parts.records.recent_rounds(count)
        ]
        disputes = [
            {"dispute": to_hex(d.id), "receipt": to_hex(d.leaf), "host": to_hex(d.host), "state": d.state}
            | {"note": d.note, "at": int(d.at)}
            for d in parts.records.disputes(count=count)
        ]
        paid = parts.paid()
        known = sorted({*parts.conduct.auditors(), *paid})
        return {
            "rounds": rounds,
            "audits": [self._line(audit) for audit in parts.records.audits(count=count)],
            "disputes": disputes,
            "suspects": {to_hex(host): reason for host, reason in parts.conduct.suspects().items()},
            "auditors": [self._auditor(who, paid.get(who, Wei(0))) for who in known[:count]],
            "paid_seconds": int(parts.epoch),
            "twins": [
                {"host": to_hex(twin.host), "job": to_hex(twin.job), "attempt": twin.attempt, "at": int(twin.at)}
                | {"receipts": [to_hex(twin.one), to_hex(twin.other)]}
                for twin in parts.twins.all(count)
            ],
        }

    def _line(self, audit: Audit) -> Tree:
        job = self._parts.ledger.job_of(audit.leaf)
        return {
            "job": to_hex(job) if job is not None else "",
            "receipt": to_hex(audit.leaf),
            "round": audit.round,
            "host": to_hex(audit.host),
            "agent": to_hex(audit.agent),
            "name": self._views.name(audit.agent),
            "state": audit.state,
            "verdict": audit.verdict.name.lower(),
            "reason": audit.reason,
            "at": int(audit.at),
            "findings": [
                {
                    "auditor": to_hex(auditor),
                    "verdict": Verdict(verdict).name.lower(),
                    "code": code,
                    "reason": reason,
                    "worst": worst,
                }
                for auditor, verdict, code, reason, worst in self._parts.records.findings(audit.leaf)
            ],
        }

    def _auditor(self, who: Address, paid: Wei) -> Tree:
        record = self._parts.conduct.auditor(who)
        counts = {"audits": record.audits, "outvoted": record.outvoted, "missed_canaries": record.missed}
        shown = {"auditor": to_hex(who), "excluded": self._parts.conduct.excluded(who)}
        return shown | counts | {"paid": self._views.coins(paid)}

    # One job

    async def record(self, job: bytes) -> AuditRecord:
        """Raises ApiError (404)."""
        row = await self._parts.ledger.job(job) or self._parts.canaries.job(job)
        if row is None:
            raise ApiError(
                404, "unknown_job", f"No job {to_hex(job)} is on record here.", hint="Records are kept for some months."
            )
        deployment = self._views.parts.deployment
        return AuditRecord(
            record="lading.audit/1",
            job=to_hex(job),
            agent=to_hex(row.agent),
            name=self._views.name(row.agent),
            ended=int(row.ended),
            chain_id=deployment.chain_id,
            court=to_hex(deployment.court_domain.contract),
            attempts=tuple([await self._attempt(row, part) for part in row.parts]),
        )

    async def _attempt(self, row: JobRow, part: PartRow) -> Attempt:
        numeric = self._numeric(row, part)
        limits = self._parts.limits(row.agent, numeric)
        shown = Attempt(
            attempt=part.attempt,
            host=to_hex(part.host),
            first=part.first,
            tokens=part.tokens,
            receipt=to_hex(part.receipt) if part.receipt else "",
            leaf=to_hex(sha256(part.receipt)) if part.receipt else "",
            numeric=numeric,
            limits=_limits(limits) if limits is not None else None,
            state="unsigned",
            standing=self._standing(part.host),
        )
        if not part.receipt:
            return shown
        leaf = sha256(part.receipt)
        audit = self._parts.records.audit(leaf)
        if audit is not None:
            return await self._audited(shown, audit, row)
        n = self._parts.ledger.anchored(leaf, row.job)
        round_ = self._round(n, leaf) if n is not None else None
        return msgspec.structs.replace(shown, state=self._unaudited(leaf, round_), round=round_)

    def _unaudited(self, leaf: bytes, round_: Round | None) -> State:
        if self._parts.orders.waiting(leaf):
            return "ordered"
        if round_ is None:
            return "waiting"
        return "passed" if round_.source else "anchored"

    async def _audited(self, shown: Attempt, audit: Audit, row: JobRow) -> Attempt:
        parts, pending = self._parts, audit.state == "pending"
        why, rate = parts.records.why(audit.leaf)
        anchored = order_leaf(audit.leaf, row.signer) if why == "bought" else audit.leaf
        asked = parts.records.asked(audit.leaf)
        again = asked.at + parts.pause if pending and not asked.opened and asked.tries < OPENING_TRIES else 0.0
        return msgspec.structs.replace(
            shown,
            state=audit.state,
            verdict=audit.verdict.name.lower(),
            reason=audit.reason,
            at=audit.at,
            why=why,
            rate_ppm=rate if why == "rate" else 0,
            gives_up_at=audit.at + parts.hold if pending else 0.0,
            round=self._round(audit.round, anchored),
            looks=self._looks(audit.leaf),
            opening=Opening(asked.tries, asked.opened, again) if asked.tries else None,
            court=await self._court(audit.leaf),
        )

    def _round(self, n: int, leaf: bytes) -> Round | None:
        records = self._parts.records
        round_, waits, (value, source) = records.round(n), records.appointment(n), records.source(n)
        tree = records.tree(n)
        if round_ is None or leaf not in tree:
            return None
        over = round_.state == "drawn" and not any(one.round == n for one in records.audits("pending"))
        at = tree.index(leaf)
        return Round(
            n=n,
            root=to_hex(round_.root),
            leaves=round_.leaves,
            index=at,
            path=tuple(to_hex(one) for one in path(tree, at)),
            block=round_.block,
            due=waits.due,
            waits_for=f"{waits.beacon} round {waits.round}" if waits.beacon else "blocks after the anchor",
            source=source,
            value=to_hex(value) if value else "",
            secret=to_hex(waits.secret) if over else "",
        )

    def _looks(self, leaf: bytes) -> tuple[Look, ...]:
        heard = {paper.auditor: paper for paper in self._parts.records.papers(leaf)}
        looks = []
        for turn in self._parts.records.turns(leaf):
            pool = {to_hex(who): str(stake) for who, stake in turn.stakes.items()}
            look = Look(turn.turn, to_hex(turn.auditor), pool)
            if turn.auditor in heard:
                found, at = heard[turn.auditor].finding, heard[turn.auditor].at
                names = ("code", "reason", "position", "checked", "flips", "suspect")
                values: Tree = {name: getattr(found, name) for name in names}
                values |= {name: _finite(getattr(found, name)) for name in ("worst", "clipped", "chunk", "prompt")}
                look = msgspec.structs.replace(look, verdict=Verdict(found.verdict).name.lower(), at=at, **values)
            looks.append(look)
        return tuple(looks)

    async def _court(self, leaf: bytes) -> Court | None:
        found = [row for row in self._parts.records.disputes(count=MOST_DISPUTES) if row.leaf == leaf]
        if not found:
            return None
        row = found[0]
        shown = Court(to_hex(row.id), row.state, row.note)
        try:
            dispute = await self._parts.court.dispute(row.id)
        except ChainError:
            return shown  # what is stored here is shown all the same
        if dispute is None:
            return shown
        return msgspec.structs.replace(
            shown,
            phase=dispute.phase.name.lower(),
            commit_by=dispute.commit_by,
            reveal_by=dispute.reveal_by,
            appeal_by=dispute.appeal_by,
            seats=dispute.seats,
            guilty=dispute.guilty,
            honest=dispute.honest,
        )

    def _standing(self, host: Address) -> HostNow:
        conduct = self._parts.conduct
        return HostNow(conduct.rate(host), conduct.clean(host), conduct.suspect(host), conduct.bar(host))

    def _numeric(self, row: JobRow, part: PartRow) -> str:
        offers = [one for one in self._views.parts.directory.offers(row.agent) if one.host == part.host]
        return offers[0].detail.numeric if offers else ""


def ordered(order: Ordered, job: bytes) -> Tree:
    return {
        "job": to_hex(job),
        "receipts": [to_hex(leaf) for leaf in order.receipts],
        "price_wei": str(order.price),
        "left": order.left,
    }


def _limits(tolerance: Tolerance) -> Limits:
    names = ("margin", "relative", "chunk", "prompt")
    return Limits(**{name: None if isinf(value := getattr(tolerance, name)) else value for name in names})


def _finite(value: float) -> float:
    """JSON has no infinity; a float this large says the same to a person."""
    return value if abs(value) < 1e30 else 1e30
