#!/usr/bin/env python3
"""Prints what the settlement's verbs cost, one JSON object a line, for `make bench`.

The numbers come from forge running each call as a transaction of its own (test/Gas.t.sol): intrinsic gas, calldata and
refunds included, equal to a receipt's gasUsed. A bar is a budget set before anything was measured; few have one.
"""

import json
import re
import sys
from typing import NamedTuple

from forge import NO_NODE, available, forge


class Figure(NamedTuple):
    """`bar` in gas, None where no budget was set; `reference` names what to compare with."""

    bar: int | None = None
    reference: str = ""
    reference_value: int = 0
    note: str = ""


X402 = "x402 batch claim, one payee and no split"
EARLIER = "reference measured earlier with the same compiler and chain, not in this run"
FLOOR = "floor: 76 bytes of calldata, ecrecover, one cold slot"
FIGURES = {
    "gas_per_voucher_k1": Figure(None, X402, 48_331, EARLIER),
    "gas_per_voucher_k10": Figure(None, X402, 23_868, EARLIER),
    "gas_per_voucher_k50": Figure(10_800, X402, 21_682, EARLIER),
    "gas_per_voucher_k200": Figure(10_300, FLOOR, 9_145, "reference calculated from the gas schedule"),
    "gas_lock_first": Figure(38_000, note="own key, batch of 25, first lock of each channel"),
    "gas_lock_top_up": Figure(note="own key, batch of 25"),
    "gas_lock_first_by_session": Figure(note="session key, batch of 25"),
    "gas_lock_top_up_by_session": Figure(note="session key, batch of 25"),
    "gas_claim": Figure(52_000, note="one party of a table of five"),
    "gas_withdraw": Figure(38_000, note="to the host itself; 37,744 is what is not computing (contracts/README.md)"),
    "gas_withdraw_to_payout": Figure(note="to a payout address, whose slot stays set: no refund"),
    "gas_start_close": Figure(),
    "gas_finish_close": Figure(),
}


def measure() -> dict[str, int]:
    """Gas by name, or exits with forge's own words when the measuring test cannot run."""
    run = forge("test", "--match-contract", "GasTest", "-vv")
    found = {name: int(value) for name, value in re.findall(r"^\s+(gas_\w+): (\d+)", run.stdout, re.MULTILINE)}
    if not found:
        sys.exit(run.stdout + run.stderr)
    return found


def describe(name: str, value: int | None) -> dict[str, object]:
    """One line of the benchmark report. A figure that was not measured has a null value and does not hold."""
    figure = FIGURES[name]
    line: dict[str, object] = {"name": name, "value": value, "unit": "gas"}
    if figure.reference:
        line |= {"reference": figure.reference, "reference_value": figure.reference_value}
        line["ratio"] = None if value is None else round(value / figure.reference_value, 3)
    if figure.bar is not None:
        line |= {"bar": f"<= {figure.bar}", "holds": value is not None and value <= figure.bar}
    return line | {"n": 1, "note": figure.note}


def main() -> int:
    if not available():
        sys.stderr.write(NO_NODE + "\n")
        print(json.dumps({"name": "gas_per_voucher", "value": None, "unit": "gas", "n": 0, "note": NO_NODE}))
        return 0
    measured = measure()
    for name in FIGURES:
        print(json.dumps(describe(name, measured.get(name))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
