"""The purse's file: several channels are written at once or not at all, and no write waits for a disk."""

import asyncio
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from factories import key, network
from lading.dispatch import purse as purses
from lading.dispatch.purse import ChannelKey, Purse
from lading.errors import PurseError
from lading_protocol.eip712 import unpack
from lading_protocol.ids import TermsId
from lading_protocol.receipts import Voucher
from unit.client.toys import PAYER, Host, ask, ended, honest, simulate, world

DOMAIN = network().settlement_domain
KEYS = [ChannelKey(PAYER.address, key(host).address, TermsId(b"\xbb" * 32), 0) for host in ("a", "b", "c")]


def test_channels_are_promised_together_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "purse.sqlite"
    purse = Purse(path, DOMAIN)
    purse.pay(PAYER, KEYS[0], 5)
    purse.lock(PAYER, KEYS[0], 50)
    with closing(sqlite3.connect(path)) as other:
        other.execute(
            f"create trigger full before insert on channels when new.host = x'{KEYS[1].host.hex()}'"
            " begin select raise(abort, 'no room'); end"
        )
    with pytest.raises(PurseError, match="no room"):
        purse.pay_all([(PAYER, channel, 7) for channel in KEYS])
    assert [purse.channel(channel).cumulative for channel in KEYS] == [5, 0, 0]
    with closing(sqlite3.connect(path)) as other:
        other.execute("drop trigger full")
    vouchers = purse.pay_all([(PAYER, channel, amount) for channel, amount in zip(KEYS, (7, 0, 9), strict=True)])
    assert vouchers[1] == b"", "nothing was ever promised there"
    assert [unpack(Voucher, vouchers[at]).value.cumulative for at in (0, 2)] == [12, 9]
    assert purse.pay_all([(PAYER, KEYS[2], 1), (PAYER, KEYS[2], 1)])[1] == purse.channel(KEYS[2]).voucher
    purse.close()
    again = Purse(path, DOMAIN)
    assert [again.channel(channel).cumulative for channel in KEYS] == [12, 0, 11]
    assert again.channel(KEYS[0]).locked == again.locked(PAYER.address) == 50
    again.close()


def test_the_log_stays_short_though_it_is_written_all_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(purses, "FOLD_AFTER", 20)
    path, log = tmp_path / "purse.sqlite", tmp_path / "purse.sqlite-wal"
    purse = Purse(path, DOMAIN)
    for _ in range(400):
        purse.pay(PAYER, KEYS[0], 1)
        wait(purse)
    assert log.stat().st_size < 60 * 4096
    with closing(sqlite3.connect(path)) as other:  # what another process finds while this one runs
        assert other.execute("select cumulative from channels").fetchall() == [("400",)]
    purse.close()


def test_nothing_is_signed_while_the_log_is_folded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write would wait for the disk, and all streams of the program with it."""
    monkeypatch.setattr(purses, "FOLD_AFTER", 1)

    async def play() -> None:
        host = Host(key("host"), honest)
        async with world(host, purse=tmp_path / "purse.sqlite") as w:
            channel = ChannelKey(PAYER.address, host.key.address, host.offer.terms, 0)
            with closing(sqlite3.connect(tmp_path / "purse.sqlite")) as reader:
                reader.execute("begin")
                reader.execute("select * from channels").fetchall()
                cost = ended(await ask(w)).cost  # its lock was a write
                await asyncio.sleep(1)
                assert w.purse.folds, "it waits for the reader to end"
                assert (host.paid, w.dispatcher.funds.tab.due(channel)) == (0, cost)
            wait(w.purse)
            await asyncio.sleep(1)
            assert (host.paid, w.dispatcher.funds.tab.due(channel)) == (cost, 0)

    simulate(play)


def wait(purse: Purse) -> None:
    while purse.folds:
        time.sleep(0.001)
