"""The same store on a PostgreSQL server, for a coordinator whose records outgrow one machine. Owns psycopg.

Statements arrive in sqlite's words and are put into PostgreSQL's here: placeholders, types, and what to do about a row
that is there already. While the server is away every call fails at once, and a thread of its own connects again: the
event loop never waits for a connection.
"""

import logging
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

from lading_coordinator.errors import BadSettings, FolderBusy, LedgerFailed
from lading_coordinator.store import STEPS, TABLES, Statement, Step, Store

if TYPE_CHECKING:
    import psycopg

T = TypeVar("T")
log = logging.getLogger(__name__)
FIRST_BACKOFF, LONGEST_BACKOFF = 0.1, 5.0
# Of all statements; a server that answers slower than this is as good as away.
STATEMENT_SECONDS = 10
_OPTIONS = {"connect_timeout": 3, "tcp_user_timeout": 3000, "keepalives_idle": 10}
_TYPES = {"blob": "bytea", "real": "double precision", "integer": "bigint"}
# One coordinator at a time: an advisory lock of the database, which goes with the connection that holds it.
_LOCK = "select pg_try_advisory_lock(hashtext('lading coordinator ' || current_schema()))"


class PostgresStore(Store):
    """Opens the database at `url`, makes its tables and, when `exclusive`, keeps other coordinators out.

    Raises LedgerFailed, FolderBusy, BadSettings (psycopg is not installed).
    """

    def __init__(self, url: str, *, exclusive: bool = True, steps: Sequence[Step] = STEPS) -> None:
        self._url = url
        self._exclusive = exclusive
        self._guard = threading.Lock()
        self._closed = threading.Event()
        self._connection: psycopg.Connection[Any] | None = None
        self._why = ""
        try:
            self._connection = self._connect()
        except _errors() as error:
            raise LedgerFailed(f"The ledger {shown(url)} does not open: {_line(error)}.") from error
        self._open(steps)

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        def read(connection: "psycopg.Connection[Any]") -> list[tuple[Any, ...]]:
            return connection.execute(translated(sql), _clean(values)).fetchall()

        return self._use(read, "read")

    def write(self, statements: Iterable[Statement]) -> None:
        """All of them or none, in one round trip. Raises LedgerFailed: then they may still have been written, if the
        server went away at the very end."""
        group = [(translated(sql), _clean(values)) for sql, values in statements]

        def put(connection: "psycopg.Connection[Any]") -> None:
            with connection.pipeline(), connection.transaction():
                for sql, values in group:
                    connection.execute(sql, values)

        self._use(put, "written")

    def insert(self, rows: Mapping[str, Sequence[Sequence[Any]]]) -> None:
        group = []
        for table, some in rows.items():
            if some:
                places = ",".join("?" * len(some[0]))
                group.append((translated(f"insert or ignore into {table} values ({places})"), list(map(_clean, some))))

        def put(connection: "psycopg.Connection[Any]") -> None:
            with connection.pipeline(), connection.transaction(), connection.cursor() as cursor:
                for sql, some in group:
                    cursor.executemany(sql, some)

        self._use(put, "written")

    def script(self, text: str) -> None:
        def run(connection: "psycopg.Connection[Any]") -> None:
            connection.execute(_declared(text).encode())

        self._use(run, "written")

    def has_table(self, name: str) -> bool:
        return bool(self.rows("select 1 where to_regclass(?) is not null", (name,)))

    def close(self) -> None:
        self._closed.set()
        with self._guard:
            if self._connection is not None:
                self._connection.close()

    # The connection

    def _use(self, work: "Callable[[psycopg.Connection[Any]], T]", done: str) -> T:
        with self._guard:
            if self._connection is None:
                raise LedgerFailed(f"The ledger cannot be {done}: {self._why}.")
            try:
                return work(self._connection)
            except _errors() as error:
                if self._connection.closed or self._connection.broken:
                    self._lost(error)
                raise LedgerFailed(f"The ledger cannot be {done}: {_line(error)}.") from error

    def _lost(self, error: Exception) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection, self._why = None, _line(error)
        log.warning("The ledger's server is away: %s", self._why)
        threading.Thread(target=self._again, name="ledger", daemon=True).start()

    def _again(self) -> None:
        """Connects, however often it takes."""
        backoff = FIRST_BACKOFF
        while not self._closed.wait(backoff):
            try:
                connection = self._connect()
            except _errors() as error:
                self._why = _line(error)
            except FolderBusy as error:  # the lock of the lost connection may outlive it for a moment
                self._why = error.message
            else:
                return self._back(connection)
            backoff = min(2 * backoff, LONGEST_BACKOFF)
        return None

    def _back(self, connection: "psycopg.Connection[Any]") -> None:
        with self._guard:
            if self._closed.is_set():
                connection.close()
            else:
                self._connection = connection
        log.info("The ledger's server is back")

    def _connect(self) -> "psycopg.Connection[Any]":
        import psycopg

        address = psycopg.conninfo.make_conninfo(self._url, application_name="lading coordinator", **_OPTIONS)
        connection = psycopg.Connection.connect(address, autocommit=True, cursor_factory=psycopg.RawCursor)
        try:
            connection.execute(f"set statement_timeout = {STATEMENT_SECONDS * 1000}".encode())
            if self._exclusive and connection.execute(_LOCK.encode()).fetchone() != (True,):
                raise FolderBusy(f"Another coordinator uses the ledger {shown(self._url)}.")
        except BaseException:
            connection.close()
            raise
        return connection


@lru_cache(maxsize=512)
def translated(sql: str) -> bytes:
    """A statement of sqlite's as PostgreSQL's: ?, ?N, `insert or ignore` and `insert or replace`."""
    sql, ignored = re.subn(r"^insert or ignore into", "insert into", sql)
    if ignored:
        sql += " on conflict do nothing"
    replaced = re.match(r"insert or replace into (\w+) *(?:\(([^)]*)\))? *(values .*)", sql, re.DOTALL)
    if replaced:
        sql = _upsert(*replaced.groups())
    turn = iter(range(1, 1 << 16))
    return re.sub(r"\?(\d*)", lambda found: f"${found.group(1) or next(turn)}", sql).encode()


def _upsert(table: str, named: str | None, values: str) -> str:
    columns, key = layouts()[table]
    chosen = [name.strip() for name in named.split(",")] if named else columns
    # A replaced row has the defaults where nothing is given, as in sqlite.
    changes = [f"{name}={'excluded.' + name if name in chosen else 'default'}" for name in columns if name not in key]
    action = f"update set {', '.join(changes)}" if changes else "nothing"
    return f"insert into {table} ({', '.join(chosen)}) {values} on conflict ({', '.join(key)}) do {action}"


@lru_cache(maxsize=1)
def layouts() -> dict[str, tuple[list[str], list[str]]]:
    """Columns and primary key of every table."""
    found = {}
    for table, body in re.findall(r"create table if not exists (\w+) \((.*?)\)(?: without rowid)?;", TABLES, re.DOTALL):
        columns, key = [], []
        for part in re.split(r",(?![^(]*\))", body):
            name, *kind = part.split()
            if name == "primary":
                key = re.findall(r"\w+", part.partition("(")[2])
                continue
            columns.append(name)
            if kind[1:3] == ["primary", "key"]:
                key = [name]
        found[table] = (columns, key)
    return found


def shown(url: str) -> str:
    """An address without its password."""
    return re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", url)


def _declared(text: str) -> str:
    text = text.replace(") without rowid", ")")
    return re.sub(r"\b(blob|real|integer)\b", lambda found: _TYPES[found.group(1)], text)


def _clean(values: Sequence[Any]) -> list[Any]:
    """PostgreSQL's texts hold no zero character; a host's words may."""
    return [one.replace("\0", "\ufffd") if isinstance(one, str) else one for one in values]


def _line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text.rstrip(".")


def _errors() -> "tuple[type[psycopg.Error], ...]":
    try:
        import psycopg
    except ImportError as error:
        raise BadSettings(
            "The setting coordinator.ledger names a PostgreSQL server, and psycopg is not installed.",
            hint="pip install 'lading[postgres]'",
        ) from error
    return (psycopg.Error,)
