"""The ledger's file: who may open it, its tables, whose it is, and what sqlite's errors mean to a person.

Knows no row. One process at a time works on a folder; the kernel lets go of it when that dies.
"""

import fcntl
import os
import sqlite3
from pathlib import Path
from typing import IO

import msgspec

from lading_node.errors import DiskFull, FolderBusy, LedgerBusy, LedgerError
from lading_protocol.ids import Address, short

_VERSION = 1
_SCHEMA = """
create table if not exists meta (name text primary key, value blob not null) without rowid;
create table if not exists channels (
    signer blob not null, terms blob not null, epoch integer not null, peer blob not null default x'',
    earned blob not null default x'', locked blob not null default x'', redeemed blob not null default x'',
    closing integer not null default 0, cumulative blob not null default x'', voucher blob not null default x'',
    lock blob not null default x'', changed real not null default 0,
    primary key (signer, terms, epoch)
) without rowid;
create table if not exists attempts (
    job blob not null, attempt integer not null, signer blob not null, terms blob not null, epoch integer not null,
    agent blob not null, tokens integer not null default 0, amount blob not null default x'', finish integer not null,
    code text not null default '', receipt blob not null default x'', at real not null,
    primary key (job, attempt)
) without rowid;
create index if not exists attempts_at on attempts (at);
create table if not exists sketches (
    job blob not null, attempt integer not null, peer blob not null, data blob not null, at real not null,
    primary key (job, attempt)
);
create index if not exists sketches_at on sketches (at);
create table if not exists redemptions (
    block integer not null, log integer not null, tx blob not null, terms blob not null, epoch integer not null,
    rows integer not null, amount blob not null, at real not null,
    primary key (block, log)
) without rowid;
create table if not exists sendings (number integer primary key, body blob not null) without rowid;
create table if not exists votes (
    dispute blob not null, round integer not null, verdict integer not null, evidence blob not null,
    salt blob not null, finding blob not null, stage text not null, at real not null,
    primary key (dispute, round)
) without rowid;
"""


class Identity(msgspec.Struct, frozen=True):
    """Whose ledger it is. Vouchers of another chain or contract are worthless here."""

    operator: Address
    chain_id: int
    settlement: Address


def open_file(path: str, busy_seconds: float) -> sqlite3.Connection:
    try:
        return sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=busy_seconds)
    except sqlite3.Error as error:
        raise translate(error) from error


def connect(path: str, identity: Identity, busy_seconds: float) -> sqlite3.Connection:
    db = open_file(path, busy_seconds)
    try:
        db.execute("pragma journal_mode=wal")
        db.execute("pragma synchronous=full")
        _modernize(db)
        db.executescript(_SCHEMA)
        _check_identity(db, identity)
    except sqlite3.Error as error:
        db.close()
        raise translate(error) from error
    except LedgerError:
        db.close()
        raise
    return db


def _modernize(db: sqlite3.Connection) -> None:
    """Redemptions once were what we had sent; now they are the chain's own events, read again from its start."""
    columns = {row[1] for row in db.execute("pragma table_info(redemptions)")}
    if columns and "block" not in columns:
        db.executescript("drop table redemptions; delete from meta where name='cursor';")


def claim(folder: Path) -> IO[str]:
    """Hold the folder's lock for as long as the returned file is open; the kernel lets go of it when we die."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = (folder / "node.lock").open("a+")
    except OSError as error:
        raise LedgerError(f"The data folder {folder} cannot be used: {error.strerror}.") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.seek(0)
        owner = file.read().strip()
        file.close()
        who = f" (process {owner})" if owner.isdigit() else ""
        raise FolderBusy(f"Another node{who} works on {folder}.") from None
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def _check_identity(db: sqlite3.Connection, identity: Identity) -> None:
    data = msgspec.msgpack.encode((_VERSION, identity.operator, identity.chain_id, identity.settlement))
    row = db.execute("select value from meta where name='identity'").fetchone()
    if row is None:
        db.execute("insert into meta values ('identity', ?)", (data,))
    elif row[0] != data:
        version, operator, chain_id, settlement = msgspec.msgpack.decode(row[0])
        raise LedgerError(
            f"This ledger belongs to operator {short(operator)} on chain {chain_id} with settlement contract "
            f"{short(settlement)} (format {version}); this node is another.",
            hint="Give each key and network its own data folder.",
        )


def translate(error: sqlite3.Error) -> LedgerError:
    text = str(error)
    if "full" in text or "disk I/O" in text:
        return DiskFull(f"The ledger cannot be written: {text}.")
    if "locked" in text or "busy" in text:
        return LedgerBusy(f"The ledger cannot be written: {text}.")
    return LedgerError(f"The ledger failed: {text}.")
