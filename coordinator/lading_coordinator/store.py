"""The coordinator's sqlite file: one connection, write-ahead log, one writer, and the lock on the data folder.

Knows tables and transactions, not what the rows mean. Statements may come from the event loop or from the ledger's
writing thread; a lock keeps them apart. They are in the part of sqlite's SQL that lading_coordinator.postgres can put
into PostgreSQL's: no functions of sqlite's own, one table's rows replaced or ignored by its primary key.
"""

import fcntl
import logging
import os
import sqlite3
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lading_coordinator.errors import FolderBusy, LedgerFailed

log = logging.getLogger(__name__)
# Rows after which the log is folded into the file. At so many pages sqlite would do it itself, within a write.
FOLD_AFTER = 2000
_LONGEST = 20_000
Statement = tuple[str, Sequence[Any]]
Step = str

# Tables whose rows are long keep their rowid: SQLite spreads a long row of one without over several pages.
TABLES = """
create table if not exists written_by (id integer primary key, step integer not null) without rowid;
create table if not exists sessions (
    key_hash blob primary key, nonce blob not null, signer blob not null, payer blob not null,
    created real not null, view text
) without rowid;
create table if not exists agents (
    agent blob primary key, manifest blob not null, registered_at integer not null
) without rowid;
create table if not exists pointers (lineage blob primary key, packed blob not null) without rowid;
create table if not exists yanks (
    agent blob primary key, lineage blob not null, packed blob not null, reason text not null
) without rowid;
create table if not exists standing (host blob primary key, owner blob not null) without rowid;
create table if not exists jobs (
    job blob primary key, signer blob not null, payer blob not null, agent blob not null, request blob, emitted blob,
    vectors blob, finish integer not null, prompt_tokens integer not null, output_tokens integer not null,
    cost text not null, ended real not null
);
create index if not exists jobs_by_end on jobs (ended);
create table if not exists parts (
    job blob not null, attempt integer not null, host blob not null, terms blob not null, first integer not null,
    tokens integer not null, amount text not null, receipt blob, leaf blob, round integer,
    primary key (job, attempt)
);
create table if not exists marks (
    job blob not null, attempt integer not null, marks blob not null, primary key (job, attempt)
);
create index if not exists parts_of_round on parts (round, leaf) where round is not null;
create index if not exists parts_in_none on parts (round) where round is null and leaf is not null;
create table if not exists rounds (
    n integer primary key, root blob not null, leaves integer not null, state text not null,
    block integer not null default 0, picked integer not null default 0, at real not null
);
create table if not exists audits (
    leaf blob primary key, round integer not null, host blob not null, agent blob not null, randomness blob not null,
    state text not null, verdict integer not null default 0, reason text not null default '', at real not null
) without rowid;
create index if not exists audits_by_state on audits (state);
create index if not exists audits_by_time on audits (at);
create table if not exists findings (
    leaf blob not null, auditor blob not null, verdict integer not null, code text not null, reason text not null,
    worst real not null, at real not null, primary key (leaf, auditor)
) without rowid;
create table if not exists openings (leaf blob primary key, data blob not null) without rowid;
create table if not exists disputes (
    id blob primary key, leaf blob not null, host blob not null, state text not null, note text not null default '',
    at real not null
) without rowid;
create index if not exists audits_by_host on audits (host, verdict);
create table if not exists draws (
    n integer primary key, secret blob not null, beacon text not null default '',
    beacon_round integer not null default 0, due real not null default 0, value blob, source text not null default ''
);
create table if not exists picks (leaf blob primary key, why text not null, rate integer not null) without rowid;
create table if not exists turns (
    leaf blob not null, turn integer not null, auditor blob not null, pool blob not null, at real not null,
    primary key (leaf, turn)
) without rowid;
create table if not exists pools (digest blob primary key, stakes blob not null) without rowid;
create table if not exists papers (
    leaf blob not null, auditor blob not null, finding blob not null, primary key (leaf, auditor)
) without rowid;
create table if not exists audit_fees (
    leaf blob not null, auditor blob not null, amount text not null, at real not null, primary key (leaf, auditor)
) without rowid;
create index if not exists audit_fees_by_time on audit_fees (at);
create table if not exists askings (
    leaf blob primary key, tries integer not null, opened integer not null, at real not null
) without rowid;
create table if not exists orders (
    leaf blob primary key, signer blob not null, round integer, at real not null, job blob
) without rowid;
create index if not exists orders_by_signer on orders (signer, at);
create table if not exists canaries (
    leaf blob primary key, job blob not null, salt blob not null, fault text not null, evidence blob not null,
    round integer, state text not null, at real not null
) without rowid;
create index if not exists canaries_by_job on canaries (job);
create index if not exists canaries_by_round on canaries (round);
create index if not exists findings_by_auditor on findings (auditor);
create table if not exists conduct (
    host blob not null, agent blob not null, numeric text not null, epoch integer not null, auditor blob not null,
    sums text not null, primary key (host, agent, numeric, epoch, auditor)
) without rowid;
create table if not exists suspects (
    host blob not null, epoch integer not null, reason text not null, at real not null, primary key (host, epoch)
) without rowid;
create table if not exists remarks (
    auditor blob not null, leaf blob not null, kind text not null, at real not null, primary key (auditor, leaf, kind)
) without rowid;
create table if not exists twins (
    host blob not null, job blob not null, attempt integer not null, one blob not null, other blob not null,
    at real not null, primary key (host, job, attempt)
) without rowid;
"""


# What was changed in tables that were there before: scripts, each run once, never edited. A new column goes here and
# into the table above; a new table only there.
STEPS: tuple[Step, ...] = (
    "drop index if exists parts_by_round; drop index if exists parts_to_anchor;",
    "alter table orders add column job blob;"
    " update orders set job = (select p.job from parts p where p.leaf = orders.leaf);"
    " drop index if exists parts_by_leaf; drop index if exists parts_in_round;"
    " drop index if exists jobs_by_signer;",
)


class Store:
    """Opens or creates `path` (":memory:" for simulations), and brings older tables up to date. Raises LedgerFailed."""

    def __init__(self, path: Path | str, *, steps: Sequence[Step] = STEPS) -> None:
        self._guard = threading.Lock()
        self._path = str(path)
        self._inserted = 0
        self._folder: sqlite3.Connection | None = None
        try:
            self._db = sqlite3.connect(str(path), isolation_level=None, check_same_thread=False)
            self._db.execute("pragma journal_mode=wal")
            self._db.execute("pragma synchronous=normal")
            self._db.execute(f"pragma wal_autocheckpoint={_LONGEST}")
        except sqlite3.Error as error:
            raise LedgerFailed(f"The ledger {path} does not open: {error}.") from error
        self._open(steps)

    def _open(self, steps: Sequence[Step]) -> None:
        try:
            self._migrate(steps)
        except LedgerFailed:
            self.close()
            raise

    def _migrate(self, steps: Sequence[Step]) -> None:
        """Tables that are missing are made; those of an older program go through the steps that it did not know."""
        old = self.has_table("jobs")
        self.script(TABLES)
        row = self.row("select step from written_by where id=0")
        done = row[0] if row else 0 if old else len(steps)
        if done > len(steps):
            raise LedgerFailed(
                "The ledger was written by a newer version of this program.", hint="Use that version, or a new ledger."
            )
        for step in steps[done:]:
            self.script(step)
        self.write([("insert or replace into written_by values (0,?)", (len(steps),))])

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Raises LedgerFailed."""
        with self._guard:
            try:
                return self._db.execute(sql, values).fetchall()
            except sqlite3.Error as error:
                raise LedgerFailed(f"The ledger cannot be read: {error}.") from error

    def row(self, sql: str, values: Sequence[Any] = ()) -> tuple[Any, ...] | None:
        found = self.rows(sql, values)
        return found[0] if found else None

    def write(self, statements: Iterable[Statement]) -> None:
        """All of them or none. Raises LedgerFailed."""
        with self._guard:
            try:
                self._db.execute("begin immediate")
                for sql, values in statements:
                    self._db.execute(sql, values)
                self._db.execute("commit")
            except sqlite3.Error as error:
                if self._db.in_transaction:
                    self._db.execute("rollback")
                raise LedgerFailed(f"The ledger cannot be written: {error}.") from error

    def insert(self, rows: Mapping[str, Sequence[Sequence[Any]]]) -> None:
        """Rows by table (and columns, where not all are given), all of them or none; those that are there already stay.
        Raises LedgerFailed. For the writing thread: it may wait for the disk, which others do not have to."""
        with self._guard:
            try:
                self._db.execute("begin immediate")
                for table, some in rows.items():
                    if some:
                        places = ",".join("?" * len(some[0]))
                        self._db.executemany(f"insert or ignore into {table} values ({places})", some)
                self._db.execute("commit")
            except sqlite3.Error as error:
                if self._db.in_transaction:
                    self._db.execute("rollback")
                raise LedgerFailed(f"The ledger cannot be written: {error}.") from error
        self._inserted += sum(map(len, rows.values()))
        if self._inserted >= FOLD_AFTER and self._path != ":memory:":
            self._inserted = 0
            self._fold()

    def _fold(self) -> None:
        """By a connection of its own, so that nobody is kept from this one meanwhile."""
        try:
            if self._folder is None:
                self._folder = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
            self._folder.execute("pragma wal_checkpoint(passive)")
        except sqlite3.Error as error:  # the log is as good as the file, and is folded another time
            log.warning("The log of the ledger %s grows: %s", self._path, error)

    def script(self, text: str) -> None:
        """Declarations, all of them or none. Raises LedgerFailed."""
        with self._guard:
            try:
                self._db.executescript(f"begin; {text} commit;")
            except sqlite3.Error as error:
                if self._db.in_transaction:
                    self._db.execute("rollback")
                raise LedgerFailed(f"The ledger's tables cannot be made: {error}.") from error

    def has_table(self, name: str) -> bool:
        return bool(self.rows("select 1 from sqlite_master where type='table' and name=?", (name,)))

    def close(self) -> None:
        with self._guard:
            if self._folder is not None:
                self._folder.close()
            self._db.close()


class FolderLock:
    """Held while a coordinator runs on the folder; the system lets go of it whatever ends the process."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._file = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._file)
            raise FolderBusy(f"Another coordinator runs on the data folder {folder}.") from error

    def fileno(self) -> int:
        """For a process that holds the lock too: it is free when the last one has let go."""
        return self._file

    def release(self) -> None:
        os.close(self._file)
