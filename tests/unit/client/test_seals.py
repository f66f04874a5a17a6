"""Sealed bids on disk: kept before they are sent, never overwritten by accident, nobody else's to read."""

from pathlib import Path

import pytest

from lading.errors import BadSettings
from lading.seals import Seal, Seals

ONE = Seal("share", 5, "0x01", "0xaa", "0x0b", "250", "0x" + "77" * 32)


def test_a_bid_is_there_for_the_next_program_and_for_nobody_else(tmp_path: Path) -> None:
    path = tmp_path / "home" / "bids.json"
    assert Seals(path).all() == ()
    Seals(path).put(ONE)
    assert Seals(path).find("share", "0x01", "0xaa", "0x0b") == ONE
    assert Seals(path).find("share", "0x01", "0xab", "0x0b") is None
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert {one.name for one in path.parent.iterdir()} == {"bids.json", "bids.lock"}


def test_the_same_bid_is_replaced_and_others_stay(tmp_path: Path) -> None:
    seals = Seals(tmp_path / "bids.json")
    other = Seal("promotion", 5, "0x02", "7/0", "0x0b", "9", "0x11")
    seals.put(ONE)
    seals.put(other)
    opened = Seal("share", 5, "0x01", "0xaa", "0x0b", "250", "0x" + "77" * 32, state="opened")
    seals.put(opened)
    assert set(seals.all()) == {opened, other}


def test_a_file_that_does_not_read_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "bids.json"
    path.write_text("[{")
    with pytest.raises(BadSettings, match="do not read"):
        Seals(path).put(ONE)
    assert path.read_text() == "[{"
