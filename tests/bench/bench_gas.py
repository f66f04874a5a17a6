"""What the settlement's verbs cost, by the receipts of transactions that the typed Python classes sent.

On the embedded chain, and on anvil where it is installed: the two must agree. Beside each stands the floor: what the
gas schedule asks of any contract that touches the same state. The scenes are in gas_scenes.py and gas_market.py.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Mapping
from typing import TypeAlias

from . import gas_market, gas_requests, gas_scenes
from .gas_stage import ANVIL, EMBEDDED, Cost, Words, kinds, stage
from .report import say

Found: TypeAlias = dict[str, dict[str, Cost]]
"""Costs by chain and by name."""
SCENES = gas_scenes.SCENES + gas_market.SCENES
X402 = {1: 48_331, 10: 23_868, 50: 21_682}
X402_NOTE = "the reference was measured earlier, with the same compiler and on anvil, not in this run"


async def measure(quick: bool) -> tuple[Found, dict[str, Words], tuple[int, ...]]:
    found: Found = {}
    for kind in kinds():
        async with stage(kind, quick) as here:
            for scene in SCENES:
                await scene(here)
            found[kind], words, batches = here.costs, here.words, here.batches
    return found, words, batches


def report(found: Found, words: Mapping[str, Words], batches: tuple[int, ...]) -> None:
    transfer = gas_requests.unit(found[EMBEDDED], "gas_erc20_transfer")
    for name in words:
        _verb(name, {kind: costs[name] for kind, costs in found.items()}, words[name], transfer)
    for count, theirs in X402.items():
        if count in batches:
            ours = max(gas_requests.unit(costs, f"gas_per_voucher_k{count}") for costs in found.values())
            reference = "x402 batch claim, one payee and no split", theirs
            say(f"gas_per_voucher_k{count}_to_x402", ours, "gas", reference=reference, n=len(found), note=X402_NOTE)
    _agreement(found, words)
    gas_requests.report(found.get(ANVIL, found[EMBEDDED]), batches)


def _verb(name: str, costs: Mapping[str, Cost], words: Words, transfer: float) -> None:
    """The dearer chain is the figure. `transfer` is an ERC-20 transfer's gas in the same run."""
    units = {kind: cost.gas / cost.per if cost.per > 1 else cost.gas for kind, cost in costs.items()}
    value, per = max(units.values()), next(iter(costs.values())).per
    told = next((cost.touched for cost in costs.values() if cost.touched), None)
    shown = ", ".join(f"{kind} {gas:,.0f}" for kind, gas in units.items())
    notes = [words.note, shown + ("; the lots differ" if len(set(units.values())) > 1 and words.lot else "")]
    notes += [f"{value / transfer:.2f} of an ERC-20 transfer"]
    notes += [f"floor: {told.formula(per)}" if told else "no floor: only anvil tells what a transaction touched"]
    say(
        name,
        value,
        "gas",
        reference=("floor by the gas schedule for the state it touches", told.floor / per) if told else None,
        bar=f"<= {words.bar}" if words.bar else None,
        n=len(costs),
        note="; ".join(note for note in notes if note),
    )


def _agreement(found: Found, words: Mapping[str, Words]) -> None:
    """Where no lot decides, a verb must cost the same on every chain, to the gas."""
    certain = [name for name, said in words.items() if not said.lot]
    differing = [name for name in certain if len({costs[name].gas for costs in found.values()}) > 1]
    note = f"of {len(certain)} verbs that no lot decides, on {' and '.join(found)}: {', '.join(differing) or 'none'}"
    if len(found) == 1:
        note = "anvil is not installed: measured on the embedded chain only"
    count = len(differing) if len(found) > 1 else None
    say("gas_verbs_that_differ_between_chains", count, "verbs", bar="<= 0", n=len(found), note=note)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small batches: a check that it runs, not a result")
    report(*asyncio.run(measure(parser.parse_args().quick)))


if __name__ == "__main__":
    main()
