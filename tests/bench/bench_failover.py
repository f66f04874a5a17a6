"""Streams whose hosts die, stall, lie and break off in the middle of a frame: what the consumer sees of it.

The dispatcher, its job machine, purse and matching are the product's own, on real sockets: direct links on loopback.
Load, hosts and dispatcher share one process and core, so that many streams at once are an overload of all of them.
"""

import argparse
from collections.abc import Coroutine
from statistics import median
from typing import Any

import uvloop

from lading.core.failover import Limits
from lading_net.direct import DirectTransport

from .failover_host import Fault, Faults
from .failover_run import Fleet, Tally, fleet
from .report import say

LOOPBACK = "/ip4/127.0.0.1/tcp/0"
FAULTS = 60_000
AT_ONCE = 800
# Between tokens of a host under overload; 1 ms before.
SLOW = 0.15
# What a fixed limit does: no word of the host's own pace, none of other streams.
FIXED = Limits(between=0.05, least=0.05, held=0.0, broken=0.0, attempts=64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    rounds = 1 if quick else 5
    _run(_quiet(rounds, 40 if quick else 300))
    _run(_exact(400 if quick else FAULTS))
    _run(_overload(1 if quick else 3, 100 if quick else AT_ONCE))


def _run(part: Coroutine[Any, Any, None]) -> None:
    uvloop.run(part)


async def _warm(made: Fleet) -> None:
    """So that every host's pace is known."""
    made.behave(Faults(0.0, 0.0, 0), pause=0.001, burst=1)
    _check(await made.run(60, 4))


async def _quiet(rounds: int, streams: int) -> None:
    """Four streams at once. The second fault of a stream waits twice as long for a silent host."""
    middles, tails, steady, count = [], [], [], 0
    for number in range(rounds):
        async with fleet(DirectTransport, LOOPBACK) as made:
            await _warm(made)
            made.behave(Faults(0.35, 0.2, number), pause=0.001, burst=1)
            tally = _check(await made.run(streams, 4, real=10))
            gaps = sorted(tally.gaps)
            count += len(gaps)
            steady.append(1000 * median(tally.steady))
            middles.append(1000 * gaps[len(gaps) // 2])
            tails.append(1000 * gaps[int(0.99 * len(gaps))])
    note = "from the last token before a move to the first after it; deaths, stalls, half, repeated, skipped frames"
    usual = ("between tokens of the same streams, without a move", median(steady))
    say("failover_gap_p50", median(middles), "ms", reference=usual, bar="<= 10", n=count, note=note)
    say("failover_gap_p99", median(tails), "ms", bar="<= 250", n=count, note="of these; nearly all of it is patience")


async def _exact(faults: int) -> None:
    """Until so many faults were injected: every 15th stream is the node's own generation, with stops or a schema."""
    whole = Tally()
    injected = dict.fromkeys(Fault, 0)
    number = 0
    async with fleet(DirectTransport, LOOPBACK) as made:
        await _warm(made)
        while sum(injected.values()) < faults:
            plan = Faults(0.7, 0.25, 100 + number)
            made.behave(plan, burst=4)
            tally = await made.run(min(2000, faults), 64, real=15)
            whole.streams += tally.streams
            whole.tokens += tally.tokens
            whole.wrong += tally.wrong
            whole.moves += tally.moves
            injected = {kind: injected[kind] + plan.injected[kind] for kind in Fault}
            number += 1
    kinds = ", ".join(f"{count} {kind.value}s" for kind, count in injected.items())
    total = sum(injected.values())
    note = (
        f"{kinds}; {whole.streams} streams, {whole.tokens} tokens, each compared with an unbroken run and its account"
    )
    if whole.wrong:
        note = f"{whole.wrong[0]}; {note}"
    say("failover_faults", total, "faults", bar=f">= {faults}", note="injected on direct links over loopback")
    say("failover_wrong_streams", len(whole.wrong), "streams", bar="<= 0", n=whole.streams, note=note)


async def _overload(rounds: int, streams: int) -> None:
    """All streams begin at once, on one core with their hosts, which become a hundred times slower than they have been;
    every third stream loses its host as well."""
    ours, fixed, lost = [], [], 0
    for number in range(rounds):
        for limits, found in ((None, ours), (FIXED, fixed)):
            async with fleet(DirectTransport, LOOPBACK, limits) as made:
                await _warm(made) if limits is None else None
                made.behave(Faults(0.3, 0.1, 200 + number), pause=SLOW, burst=1)
                tally = await made.run(streams, streams)
                found.append(tally.moves / tally.streams)
                if limits is None:
                    _check(tally)
                else:
                    lost += len({one.partition(":")[0] for one in tally.wrong})
    say(
        "failover_moves_overload",
        median(ours),
        "a stream",
        reference=("a fixed limit of 50 ms between tokens", median(fixed)),
        bar="<= 1.3",
        n=rounds,
        note=f"{streams} streams at once on one core; fixed: {lost} of {rounds * streams} ran out of hosts",
    )


def _check(tally: Tally) -> Tally:
    if tally.wrong:
        raise SystemExit(f"{len(tally.wrong)} of {tally.streams} streams are wrong: {tally.wrong[0]}")
    return tally


if __name__ == "__main__":
    main()
