"""The floor of a transaction's gas, against sums done by hand from the gas schedule."""

from typing import Any

import pytest

from bench.gas_floor import Touched, touched

SENDER, FIRST, COIN = ("0x" + digit * 40 for digit in "abc")


def word(value: int) -> str:
    return f"0x{value:064x}"


def traces() -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Two recoveries, a sha256 of 33 bytes and two calls of the coin. Slot 1 changes, 2 is filled, 3 cleared;
    4, and 5 which is empty, are only read."""
    recover = {"to": "0x" + "0" * 39 + "1", "input": "0x" + "00" * 128}
    sha256 = {"to": "0x" + "0" * 39 + "2", "input": "0x" + "00" * 33}
    calls = {"to": FIRST, "calls": [recover, {"to": COIN, "input": "0x", "calls": [recover, sha256]}, {"to": COIN}]}
    slots = {word(1): word(9), word(2): word(0), word(3): word(7)}
    before = {
        SENDER: {"balance": "0x1"},
        FIRST: {"storage": slots},
        COIN: {"storage": {word(4): word(1), word(5): word(0)}},
    }
    change = {
        "pre": {FIRST: {"storage": {word(1): word(9), word(3): word(7)}}, SENDER: {"balance": "0x1"}},
        "post": {FIRST: {"storage": {word(1): word(8), word(2): word(1)}}, SENDER: {"balance": "0x0"}},
    }
    return calls, before, change


def test_a_trace_is_counted() -> None:
    assert touched(b"\0\1\2", SENDER, *traces()) == Touched(
        zero_bytes=1,
        other_bytes=2,
        recovered=2,
        hashing=60 + 2 * 12,
        read=2,
        changed=1,
        filled=1,
        cleared=1,
        contracts=1,
    )


def test_the_floor_is_the_sum_of_its_parts() -> None:
    gas = 21_000 + 4 + 2 * 16 + 2 * 3_000 + 84 + 2_600 + 2 * 2_100 + 5_000 + 22_100 + 5_000 - 4_800
    assert touched(b"\0\1\2", SENDER, *traces()).floor == gas


def test_one_more_voucher_of_a_batch_costs_at_least_9_144() -> None:
    """76 bytes, six of them zero as on average, one recovery, one slot."""
    batch = [Touched(zero_bytes=6 * k, other_bytes=70 * k, recovered=k, changed=k + 2) for k in (50, 51)]
    assert batch[1].floor - batch[0].floor == 6 * 4 + 70 * 16 + 3_000 + 5_000 == 9_144


def test_no_more_than_a_fifth_is_given_back() -> None:
    cleared = Touched(cleared=20)
    assert cleared.floor == (21_000 + 20 * 5_000) * 4 // 5


def test_calldata_that_does_nothing_is_dearer() -> None:
    assert Touched(zero_bytes=100, other_bytes=1_000).floor == 21_000 + 10 * (100 + 4_000)


@pytest.mark.parametrize("per", [1, 25])
def test_the_formula_gives_the_floor(per: int) -> None:
    """Read back as arithmetic, what is shown to people is what was computed."""
    seen = Touched(zero_bytes=9, other_bytes=64, recovered=25, read=3, changed=4, filled=2, contracts=1)
    text = seen.formula(per).replace(",", "")
    for words in (
        "for 73 bytes of calldata",
        "ecrecover",
        "slots changed",
        "slots filled",
        "slots only read",
        "contracts called",
    ):
        assert words in text
        text = text.replace(words, "")
    assert eval(text.replace("x", "*")) == seen.floor / per


def test_sums_of_transactions_count_each() -> None:
    assert (Touched(changed=1) + Touched(filled=1)).floor == 2 * 21_000 + 5_000 + 22_100
