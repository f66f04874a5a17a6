"""The purse: every channel this side pays into, with the highest voucher and lock it signed. Durable before sent.

One sqlite file, one writer. It signs what it is told to; how much is owed is the job's business. Writing goes to
sqlite's log and waits for no disk; what does, folding the log into the file, is done beside, in a thread.
"""

import contextlib
import logging
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from lading.errors import PurseError
from lading_protocol.eip712 import Domain
from lading_protocol.ids import Address, TermsId, Wei
from lading_protocol.keys import PrivateKey
from lading_protocol.receipts import Lock, Voucher

log = logging.getLogger(__name__)
# Writes after which the log is folded into the file. At so many pages sqlite would do it itself, within a write.
FOLD_AFTER = 1000
# Channels that are known by heart, those and which one is in use between two parties counted together.
MOST_KNOWN = 1 << 17
_LONGEST = 20_000
_SCHEMA = """
create table if not exists channels (
    signer blob not null, host blob not null, terms blob not null, epoch integer not null,
    cumulative text not null default '0', voucher blob not null default x'',
    locked text not null default '0', lock blob not null default x'',
    primary key (signer, host, terms, epoch)
) without rowid;
create index if not exists by_host on channels (host);
create table if not exists epochs (
    signer blob not null, host blob not null, terms blob not null, epoch integer not null,
    primary key (signer, host, terms)
) without rowid;
"""
# A row that is there stays where it is, in the table and in its index.
_KEEP = """
insert into channels values (?,?,?,?,?,?,?,?) on conflict (signer, host, terms, epoch) do update set
cumulative = excluded.cumulative, voucher = excluded.voucher, locked = excluded.locked, lock = excluded.lock
"""


class ChannelKey(msgspec.Struct, frozen=True):
    signer: Address
    host: Address
    terms: TermsId
    epoch: int


class PayerChannel(msgspec.Struct, frozen=True):
    """`cumulative` and `locked` (wei) are the highest amounts signed; the packed papers are empty before the first."""

    cumulative: Wei = Wei(0)
    voucher: bytes = b""
    locked: Wei = Wei(0)
    lock: bytes = b""


class Purse:
    """Opens or creates the store at `path` (":memory:" for simulations). Raises PurseError."""

    def __init__(self, path: Path | str, domain: Domain) -> None:
        self._domain = domain
        try:
            self._db = sqlite3.connect(str(path), isolation_level=None)
            self._db.execute("pragma journal_mode=wal")
            self._db.execute("pragma synchronous=normal")
            self._db.execute(f"pragma wal_autocheckpoint={_LONGEST}")
            self._db.executescript(_SCHEMA)
        except sqlite3.Error as error:
            raise PurseError(f"The purse {path} does not open: {error}.") from error
        self._path = str(path)
        self._writes = 0
        self._folding: threading.Thread | None = None
        self._cache: dict[ChannelKey, PayerChannel] = {}
        self._locked: dict[Address, int] = {}
        self._current: dict[tuple[Address, Address, TermsId], ChannelKey] = {}
        # Who keeps amounts back for a moment signs for them when somebody looks at all channels.
        self.before_look: Callable[[], None] = lambda: None

    def epoch(self, signer: Address, host: Address, terms: TermsId) -> int:
        """The channel generation in use; a channel that was closed on chain lives on under the next one."""
        return self.current(signer, host, terms).epoch

    def current(self, signer: Address, host: Address, terms: TermsId) -> ChannelKey:
        """The channel in use."""
        place = signer, host, terms
        found = self._current.get(place)
        if found is None:
            self._forget()
            row = self._db.execute("select epoch from epochs where signer=? and host=? and terms=?", place).fetchone()
            found = self._current[place] = ChannelKey(signer, host, terms, int(row[0]) if row else 0)
        return found

    def set_epoch(self, signer: Address, host: Address, terms: TermsId, epoch: int) -> None:
        self._write("insert or replace into epochs values (?,?,?,?)", [(signer, host, terms, epoch)])
        self._current[signer, host, terms] = ChannelKey(signer, host, terms, epoch)
        self._locked.pop(signer, None)

    def closed(self, signer: Address, host: Address, terms: TermsId, epoch: int) -> None:
        """A close of this channel was started on chain: what is promised from now on goes into the next epoch."""
        if epoch >= self.epoch(signer, host, terms):
            self.set_epoch(signer, host, terms, epoch + 1)

    def channel(self, key: ChannelKey) -> PayerChannel:
        found = self._cache.get(key)
        if found is None:
            self._forget()
            row = self._db.execute(
                "select cumulative, voucher, locked, lock from channels"
                " where signer=? and host=? and terms=? and epoch=?",
                (key.signer, key.host, key.terms, key.epoch),
            ).fetchone()
            found = PayerChannel(Wei(int(row[0])), row[1], Wei(int(row[2])), row[3]) if row else PayerChannel()
            self._cache[key] = found
        return found

    def _forget(self) -> None:
        """What is in memory is in the file, too."""
        if len(self._cache) + len(self._current) >= MOST_KNOWN:
            for known in (self._cache, self._current, self._locked):
                known.clear()

    @property
    def folds(self) -> bool:
        """Whether a write would have to share the disk, and might wait for it. It may be done all the same."""
        return self._folding is not None and self._folding.is_alive()

    def pay(self, secret: PrivateKey, key: ChannelKey, more: int) -> bytes:
        """Promise `more` wei on top; returns the packed voucher, stored before it is returned. Raises PurseError."""
        return self.pay_all([(secret, key, more)])[0]

    def pay_all(self, promises: Iterable[tuple[PrivateKey, ChannelKey, int]]) -> list[bytes]:
        """The same for several channels, with one write: all of it is promised or, where it fails, nothing."""
        vouchers: list[bytes] = []
        changed: dict[ChannelKey, PayerChannel] = {}
        for secret, key, more in promises:
            held = changed.get(key) or self.channel(key)
            if more > 0:
                cumulative = Wei(held.cumulative + more)
                voucher = Voucher(key.host, key.terms, key.epoch, cumulative).sign(self._domain, secret).pack()
                held = changed[key] = PayerChannel(cumulative, voucher, held.locked, held.lock)
            vouchers.append(held.voucher)
        if changed:
            self._save(changed)
        return vouchers

    def lock(self, secret: PrivateKey, key: ChannelKey, total: int) -> bytes:
        """Raise the channel's lock to `total` wei; returns the packed lock. Raises PurseError."""
        held = self.channel(key)
        if total <= held.locked:
            return held.lock
        lock = Lock(key.host, key.terms, key.epoch, total).sign(self._domain, secret).pack()
        self._save({key: PayerChannel(held.cumulative, held.voucher, Wei(total), lock)})
        self._locked.pop(key.signer, None)
        return lock

    def locked(self, signer: Address) -> Wei:
        """All that this signer has locked, over the channels in use (wei)."""
        found = self._locked.get(signer)
        if found is None:
            used = [one for key, one in self.channels(signer) if key == self.current(signer, key.host, key.terms)]
            found = self._locked[signer] = sum(one.locked for one in used)
        return Wei(found)

    def pages(self, host: Address, size: int) -> Iterator[list[tuple[bytes, bytes]]]:
        """(voucher, lock) of every channel with this host that has a voucher, for a host that asks. So many at a time,
        each read when it is wanted; the last page is not full."""
        self.before_look()
        at: tuple[bytes, bytes, int] = b"", b"", 0
        full = True
        while full:
            rows = self._db.execute(
                "select signer, terms, epoch, voucher, lock from channels where host=? and voucher!=x''"
                " and (signer, terms, epoch) > (?,?,?) order by signer, terms, epoch limit ?",
                (host, *at, size),
            ).fetchall()
            full = len(rows) == size
            if full:
                at = rows[-1][:3]
            yield [(bytes(row[3]), bytes(row[4])) for row in rows]

    def channels(self, signer: Address) -> list[tuple[ChannelKey, PayerChannel]]:
        self.before_look()
        rows = self._db.execute(
            "select host, terms, epoch, cumulative, voucher, locked, lock from channels where signer=?", (signer,)
        )
        return [
            (ChannelKey(signer, host, terms, epoch), PayerChannel(Wei(int(paid)), voucher, Wei(int(locked)), lock))
            for host, terms, epoch, paid, voucher, locked, lock in rows
        ]

    def close(self) -> None:
        if self._folding is not None:
            self._folding.join()
        self._db.close()

    def _save(self, changed: Mapping[ChannelKey, PayerChannel]) -> None:
        self._write(_KEEP, [_row(key, channel) for key, channel in changed.items()])
        self._cache.update(changed)

    def _write(self, sql: str, rows: Sequence[Sequence[object]]) -> None:
        """All of them or none."""
        try:
            if len(rows) == 1:
                self._db.execute(sql, rows[0])
            else:
                self._db.execute("begin immediate")
                self._db.executemany(sql, rows)
                self._db.execute("commit")
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.execute("rollback")
            raise PurseError(f"The purse cannot be written: {error}.") from error
        self._writes += 1
        if self._writes >= FOLD_AFTER and not self.folds and self._path != ":memory:":
            self._writes = 0
            self._folding = threading.Thread(target=_fold, args=(self._path,), name="purse")
            self._folding.start()


def _fold(path: str) -> None:
    try:
        with contextlib.closing(sqlite3.connect(path)) as db:
            db.execute("pragma wal_checkpoint(passive)")
            db.execute("pragma wal_checkpoint(restart)")  # what was written meanwhile, so that the log has an end
            db.execute("pragma user_version=1")  # the first write into a log that begins anew waits for the disk
    except sqlite3.Error as error:  # the log is as good as the file, and is folded another time
        log.warning("The log of the purse %s grows: %s", path, error)


def _row(key: ChannelKey, channel: PayerChannel) -> list[object]:
    """As bytearrays: for bytes sqlite3 looks up each time how they are to be converted."""
    return [
        bytearray(key.signer),
        bytearray(key.host),
        bytearray(key.terms),
        key.epoch,
        str(channel.cumulative),
        bytearray(channel.voucher),
        str(channel.locked),
        bytearray(channel.lock),
    ]
