"""The embedded chain's one SQLite file: trie nodes for py-evm, and answers to RPC questions, committed together.

A block is one SQLite transaction, so a kill leaves either the whole block or none of it. The file is opened with an
exclusive lock, which the operating system drops with the process: a second process on the same folder is refused.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from lading_contracts.errors import ChainFolderBusy

_CACHED_NODES = 100_000
_SCHEMA = """
CREATE TABLE IF NOT EXISTS nodes(key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS meta(name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS blocks(number INTEGER PRIMARY KEY, hash BLOB NOT NULL, body BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS blocks_hash ON blocks(hash);
CREATE TABLE IF NOT EXISTS txs(
    hash BLOB PRIMARY KEY, block INTEGER NOT NULL, body BLOB NOT NULL, receipt BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS txs_block ON txs(block);
CREATE TABLE IF NOT EXISTS logs(
    block INTEGER NOT NULL, idx INTEGER NOT NULL, address BLOB NOT NULL, topics BLOB NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY(block, idx)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS logs_address ON logs(address, block);
"""


class LogRow(msgspec.Struct, frozen=True):
    """One event: `topics` are the 32-byte topics joined, `body` is the JSON that eth_getLogs answers with."""

    index: int
    address: bytes
    topics: bytes
    body: bytes


class TxRow(msgspec.Struct, frozen=True):
    """One included transaction, as JSON answers."""

    hash: bytes
    body: bytes
    receipt: bytes
    logs: tuple[LogRow, ...]


class Store:
    """Owns the connection. `folder=None` keeps everything in memory, for tests."""

    def __init__(self, folder: Path | None) -> None:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        name = ":memory:" if folder is None else str(folder / "chain.sqlite")
        self._db = sqlite3.connect(name, isolation_level=None, check_same_thread=False, timeout=0.2)
        try:
            self._db.executescript(
                "PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"
                "BEGIN EXCLUSIVE; COMMIT;" + _SCHEMA
            )
        except sqlite3.OperationalError as error:
            self._db.close()
            if "locked" in str(error):
                raise ChainFolderBusy(f"Another process is running the embedded chain in {folder}.") from error
            raise
        self._cache: dict[bytes, bytes] = {}
        self._pending: dict[bytes, bytes | None] = {}

    def close(self) -> None:
        self._db.close()

    # --- the key-value face that py-evm's AtomicDB wraps ---

    def __getitem__(self, key: bytes) -> bytes:
        if key in self._pending:
            value = self._pending[key]
        else:
            value = self._cache.get(key)
            if value is None:
                row = self._db.execute("SELECT value FROM nodes WHERE key=?", (key,)).fetchone()
                value = None if row is None else row[0]
                if value is not None:
                    self._remember(key, value)
        if value is None:
            raise KeyError(key)
        return value

    def __setitem__(self, key: bytes, value: bytes) -> None:
        self._pending[bytes(key)] = bytes(value)

    def __delitem__(self, key: bytes) -> None:
        self._pending[bytes(key)] = None

    def __contains__(self, key: bytes) -> bool:
        try:
            self[key]
        except KeyError:
            return False
        return True

    def _remember(self, key: bytes, value: bytes) -> None:
        if len(self._cache) >= _CACHED_NODES:
            self._cache.clear()
        self._cache[key] = value

    # --- blocks ---

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything written inside becomes durable together, or not at all."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            written = [(key, value) for key, value in self._pending.items() if value is not None]
            deleted = [(key,) for key, value in self._pending.items() if value is None]
            self._db.executemany("INSERT OR REPLACE INTO nodes VALUES(?,?)", written)
            self._db.executemany("DELETE FROM nodes WHERE key=?", deleted)
            self._db.execute("COMMIT")
        except BaseException:
            self._pending.clear()
            self._db.execute("ROLLBACK")
            raise
        for key, value in written:
            self._remember(key, value)
        for (key,) in deleted:
            self._cache.pop(key, None)
        self._pending.clear()

    def add_block(self, number: int, block_hash: bytes, body: bytes, txs: Iterable[TxRow]) -> None:
        self._db.execute("INSERT INTO blocks VALUES(?,?,?)", (number, block_hash, body))
        for tx in txs:
            self._db.execute("INSERT INTO txs VALUES(?,?,?,?)", (tx.hash, number, tx.body, tx.receipt))
            rows = [(number, log.index, log.address, log.topics, log.body) for log in tx.logs]
            self._db.executemany("INSERT INTO logs VALUES(?,?,?,?,?)", rows)

    def forget_above(self, number: int) -> None:
        """Drop the blocks above `number`, as a reorganisation does. Their trie nodes stay: they harm nobody."""
        for table, column in (("blocks", "number"), ("txs", "block"), ("logs", "block")):
            self._db.execute(f"DELETE FROM {table} WHERE {column}>?", (number,))

    def head(self) -> tuple[int, bytes] | None:
        row = self._db.execute("SELECT number, hash FROM blocks ORDER BY number DESC LIMIT 1").fetchone()
        return None if row is None else (row[0], row[1])

    def block_hash(self, number: int) -> bytes | None:
        row = self._db.execute("SELECT hash FROM blocks WHERE number=?", (number,)).fetchone()
        return None if row is None else row[0]

    def block_body(self, key: int | bytes) -> bytes | None:
        column = "number" if isinstance(key, int) else "hash"
        row = self._db.execute(f"SELECT body FROM blocks WHERE {column}=?", (key,)).fetchone()
        return None if row is None else row[0]

    def tx(self, tx_hash: bytes) -> tuple[bytes, bytes] | None:
        """(transaction, receipt) as JSON."""
        row = self._db.execute("SELECT body, receipt FROM txs WHERE hash=?", (tx_hash,)).fetchone()
        return None if row is None else (row[0], row[1])

    def tx_bodies(self, number: int) -> list[bytes]:
        return [row[0] for row in self._db.execute("SELECT body FROM txs WHERE block=? ORDER BY rowid", (number,))]

    def logs(self, first: int, last: int, addresses: Sequence[bytes], topics: Sequence[Sequence[bytes]]) -> list[bytes]:
        """JSON bodies of the matching events. Empty `addresses` means any; an empty list in `topics` means any."""
        where, values = "block BETWEEN ? AND ?", [first, last, *addresses]
        if addresses:
            where += f" AND address IN ({','.join('?' * len(addresses))})"
        rows = self._db.execute(f"SELECT topics, body FROM logs WHERE {where} ORDER BY block, idx", values)
        return [body for joined, body in rows if _matches(joined, topics)]

    def meta(self, name: str) -> str | None:
        row = self._db.execute("SELECT value FROM meta WHERE name=?", (name,)).fetchone()
        return None if row is None else row[0]

    def set_meta(self, name: str, value: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta VALUES(?,?)", (name, value))


def _matches(joined: bytes, topics: Sequence[Sequence[bytes]]) -> bool:
    for at, wanted in enumerate(topics):
        if wanted and joined[32 * at : 32 * at + 32] not in wanted:
            return False
    return 32 * len(topics) <= len(joined)
