"""What is known of hosts and auditors over many audits: rates, suspicion, long records, remarks. Durable.

Everything counts by epochs of the coordinator's clock, so that a restart changes nothing.
"""

from collections.abc import Callable

import msgspec

from lading_coordinator.audits.records import Audit, Paper
from lading_coordinator.core.audits import Policy, host_ppm
from lading_coordinator.core.conduct import AuditorRecord, Kind, host_bar, resting, struck_off
from lading_coordinator.store import Statement, Store
from lading_protocol.conduct import Honest, Sums, sums_of, suspicion
from lading_protocol.ids import Address, AgentId

# Epochs whose audits and suspicions still count. A cheat that no audit proves shows in hundreds of them only, and gives
# up more by staying away so long than it saved until then (docs/economics.md).
WINDOW = 90
# Epochs that a suspicion lasts: at its rate of audits the next one, or none, is soon sure.
SUSPICION = 7
# What a host gains by a clean record it has long before.
MOST_CLEAN = 10_000


class Pair(msgspec.Struct, frozen=True):
    """The numeric classes of a host and of an auditor of its."""

    host: str
    auditor: str

    def __str__(self) -> str:
        return f"{self.host} by {self.auditor}"


class Conduct:
    """`clock` gives Unix seconds, `epoch` is in seconds, `honest` says what is normal for an agent and a pair of
    classes; None where nobody has measured it."""

    def __init__(
        self,
        store: Store,
        clock: Callable[[], float],
        policy: Policy,
        honest: Callable[[AgentId, Pair], Honest | None],
        epoch: float = 86_400.0,
    ) -> None:
        self._store = store
        self._clock = clock
        self._policy = policy
        self._honest = honest
        self._epoch = epoch

    def now(self) -> int:
        """The number of the epoch that runs."""
        return int(self._clock() // self._epoch)

    # Hosts

    def rate(self, host: Address) -> int:
        """The share of this host's receipts that is checked now, in millionths."""
        return host_ppm(self.clean(host), bool(self.suspect(host)), self._policy)

    def clean(self, host: Address) -> int:
        """Audits without a fault since the last fault or suspicion; no more than MOST_CLEAN are counted."""
        row = self._store.row(
            "select count(*) from (select 1 from audits where host=?1 and verdict=1 and state='done'"
            " and at > coalesce((select max(at) from audits where host=?1 and verdict=2 and state!='canary'), 0)"
            " and at > coalesce((select max(at) from suspects where host=?1), 0) limit ?2) e",
            (host, MOST_CLEAN),
        )
        return int(row[0]) if row else 0

    def suspect(self, host: Address) -> str:
        """Why the host is suspect now; "" when it is not."""
        row = self._store.row(
            "select reason from suspects where host=? and epoch > ? order by epoch desc limit 1",
            (host, self.now() - SUSPICION),
        )
        return row[0] if row else ""

    def suspects(self) -> dict[Address, str]:
        """All that are suspect now, with the newest reason."""
        rows = self._store.rows(
            "select host, reason from suspects where epoch > ? order by epoch", (self.now() - SUSPICION,)
        )
        return {Address(host): reason for host, reason in rows}

    def bar(self, host: Address) -> str:
        """Why the host gets no new jobs; "" when it does."""
        epochs = self._store.row(
            "select count(*) from suspects where host=? and epoch > ?", (host, self.now() - WINDOW)
        )
        twin = self._store.row("select 1 from twins where host=?", (host,))
        return host_bar(epochs[0] if epochs else 0, twin is not None)

    def bars(self) -> dict[Address, str]:
        """For all hosts against whom something was found: why they get no new jobs, or "" where they do."""
        rows = self._store.rows("select host from suspects union select host from twins")
        return {Address(host): self.bar(Address(host)) for (host,) in rows}

    def suspicious(self, host: Address, reason: str) -> bool:
        """Cast suspicion on the host; False when that was done in this epoch already."""
        if self._store.row("select 1 from suspects where host=? and epoch=?", (host, self.now())):
            return False
        self._store.write(
            [("insert or ignore into suspects values (?,?,?,?)", (host, self.now(), reason[:500], self._clock()))]
        )
        return True

    def learn(self, audit: Audit, pair: Pair, paper: Paper, tokens: int) -> str:
        """Add what was found of `tokens` output tokens to the long record; the reason if that made the host suspect."""
        added = sums_of(paper.finding, tokens)
        if added is None or not pair.host or not pair.auditor:
            return ""
        key = (audit.host, audit.agent, str(pair), self.now(), paper.auditor)
        row = self._store.row(
            "select sums from conduct where host=? and agent=? and numeric=? and epoch=? and auditor=?", key
        )
        whole = (_sums(row[0]) if row else Sums()) + added
        old = self.now() - WINDOW
        statements: list[Statement] = [
            ("insert or replace into conduct values (?,?,?,?,?,?)", (*key, msgspec.json.encode(whole).decode())),
            ("delete from conduct where epoch <= ?", (old,)),
            ("delete from suspects where epoch <= ?", (old,)),
        ]
        self._store.write(statements)
        honest = self._honest(audit.agent, pair)
        if honest is None:
            return ""
        reason = suspicion(self.record(audit.host, audit.agent, pair), honest)
        return reason if reason and self.suspicious(audit.host, reason) else ""

    def record(self, host: Address, agent: AgentId, pair: Pair) -> dict[Address, Sums]:
        """The host's sums by auditor. What made it suspect once is spent: only later epochs count again."""
        spent = self._store.row("select max(epoch) from suspects where host=? and epoch < ?", (host, self.now()))
        first = max(self.now() - WINDOW, spent[0] if spent and spent[0] is not None else 0)
        found: dict[Address, Sums] = {}
        for auditor, text in self._store.rows(
            "select auditor, sums from conduct where host=? and agent=? and numeric=? and epoch > ?",
            (host, agent, str(pair), first),
        ):
            found[Address(auditor)] = found.get(Address(auditor), Sums()) + _sums(text)
        return found

    # Auditors

    def remark(self, auditor: Address, leaf: bytes, kind: Kind) -> None:
        values = (auditor, leaf, kind.value, self._clock())
        self._store.write([("insert or ignore into remarks values (?,?,?,?)", values)])

    def auditor(self, who: Address) -> AuditorRecord:
        agreed = self._store.row("select count(*) from findings where auditor=? and verdict > 0", (who,))
        return msgspec.structs.replace(self._remarks(who), audits=agreed[0] if agreed else 0)

    def excluded(self, who: Address) -> str:
        """Why this auditor is not asked; "" when it may be."""
        record = self._remarks(who)
        return struck_off(record) or resting(record)

    def _remarks(self, who: Address) -> AuditorRecord:
        since = self.now() * self._epoch
        whole: dict[str, int] = {}
        now: dict[str, int] = {}
        for kind, count, recent in self._store.rows(
            "select kind, count(*), count(case when at >= ? then 1 end) from remarks where auditor=? group by kind",
            (since, who),
        ):
            whole[kind], now[kind] = count, recent
        return AuditorRecord(
            outvoted=whole.get(Kind.OUTVOTED.value, 0),
            missed=whole.get(Kind.MISSED.value, 0),
            overruled=whole.get(Kind.OVERRULED.value, 0),
            silent_now=now.get(Kind.SILENT.value, 0),
            broken_now=now.get(Kind.BROKEN.value, 0),
            outvoted_now=now.get(Kind.OUTVOTED.value, 0),
        )

    def auditors(self) -> list[Address]:
        """Everybody about whom there is a remark."""
        return [Address(who) for (who,) in self._store.rows("select distinct auditor from remarks order by auditor")]


def _sums(text: str) -> Sums:
    return msgspec.json.decode(text, type=Sums)
