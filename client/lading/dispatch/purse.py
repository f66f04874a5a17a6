"""The purse: every channel this side pays into, with the highest voucher and lock it signed. Durable before sent.

One sqlite file, one writer. It signs what it is told to; how much is owed is the job's business.
"""

import sqlite3
from collections.abc import Callable
from pathlib import Path

import msgspec

from lading.errors import PurseError
from lading_protocol.eip712 import Domain
from lading_protocol.ids import Address, TermsId, Wei
from lading_protocol.keys import PrivateKey
from lading_protocol.receipts import Lock, Voucher

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
            self._db.executescript(_SCHEMA)
        except sqlite3.Error as error:
            raise PurseError(f"The purse {path} does not open: {error}.") from error
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
            row = self._db.execute("select epoch from epochs where signer=? and host=? and terms=?", place).fetchone()
            found = self._current[place] = ChannelKey(signer, host, terms, int(row[0]) if row else 0)
        return found

    def set_epoch(self, signer: Address, host: Address, terms: TermsId, epoch: int) -> None:
        self._write("insert or replace into epochs values (?,?,?,?)", (signer, host, terms, epoch))
        self._current[signer, host, terms] = ChannelKey(signer, host, terms, epoch)
        self._locked.pop(signer, None)

    def closed(self, signer: Address, host: Address, terms: TermsId, epoch: int) -> None:
        """A close of this channel was started on chain: what is promised from now on goes into the next epoch."""
        if epoch >= self.epoch(signer, host, terms):
            self.set_epoch(signer, host, terms, epoch + 1)

    def channel(self, key: ChannelKey) -> PayerChannel:
        found = self._cache.get(key)
        if found is None:
            row = self._db.execute(
                "select cumulative, voucher, locked, lock from channels"
                " where signer=? and host=? and terms=? and epoch=?",
                (key.signer, key.host, key.terms, key.epoch),
            ).fetchone()
            found = PayerChannel(Wei(int(row[0])), row[1], Wei(int(row[2])), row[3]) if row else PayerChannel()
            self._cache[key] = found
        return found

    def pay(self, secret: PrivateKey, key: ChannelKey, more: int) -> bytes:
        """Promise `more` wei on top; returns the packed voucher, stored before it is returned. Raises PurseError."""
        held = self.channel(key)
        if more <= 0:
            return held.voucher
        cumulative = Wei(held.cumulative + more)
        voucher = Voucher(key.host, key.terms, key.epoch, cumulative).sign(self._domain, secret).pack()
        self._save(key, msgspec.structs.replace(held, cumulative=cumulative, voucher=voucher))
        return voucher

    def lock(self, secret: PrivateKey, key: ChannelKey, total: int) -> bytes:
        """Raise the channel's lock to `total` wei; returns the packed lock. Raises PurseError."""
        held = self.channel(key)
        if total <= held.locked:
            return held.lock
        lock = Lock(key.host, key.terms, key.epoch, total).sign(self._domain, secret).pack()
        self._save(key, msgspec.structs.replace(held, locked=Wei(total), lock=lock))
        return lock

    def locked(self, signer: Address) -> Wei:
        """All that this signer has locked, over the channels in use (wei)."""
        found = self._locked.get(signer)
        if found is None:
            used = [one for key, one in self.channels(signer) if key == self.current(signer, key.host, key.terms)]
            found = self._locked[signer] = sum(one.locked for one in used)
        return Wei(found)

    def latest(self, host: Address) -> list[tuple[bytes, bytes]]:
        """(voucher, lock) of every channel with this host that has a voucher, for a host that asks."""
        self.before_look()
        return [
            (bytes(row[0]), bytes(row[1]))
            for row in self._db.execute("select voucher, lock from channels where host=? and voucher!=x''", (host,))
        ]

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
        self._db.close()

    def _save(self, key: ChannelKey, channel: PayerChannel) -> None:
        self._write(
            "insert or replace into channels values (?,?,?,?,?,?,?,?)",
            (
                key.signer,
                key.host,
                key.terms,
                key.epoch,
                str(channel.cumulative),
                channel.voucher,
                str(channel.locked),
                channel.lock,
            ),
        )
        if self.channel(key).locked != channel.locked:
            self._locked.pop(key.signer, None)
        self._cache[key] = channel

    def _write(self, sql: str, values: tuple[object, ...]) -> None:
        try:
            self._db.execute(sql, values)
        except sqlite3.Error as error:
            raise PurseError(f"The purse cannot be written: {error}.") from error
