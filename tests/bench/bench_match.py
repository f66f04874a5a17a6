"""Choosing a host among very many: exact, against a numpy scan of the same offers in the same rounds; and the updates.

CPU time, not the clock's: the machine may be shared. Figures are medians over rounds, a ratio the median of the rounds'
own ratios. The offers: 200 agents with Zipf's popularity, 16 regions, log-normal prices whose answer costs 2 to 4 times
the prompt, three tiers. A request has any length of prompt and answer, so that no order of prices fits them all.
"""

from __future__ import annotations

import argparse
import gc
import math
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np

from factories import NOW, chat_request, unsigned_offer, with_changes
from lading.core.matching import FAR, Aim, Filters, Want, aim_of, distance, rank
from lading.core.prefix import PrefixIndex, chain_of
from lading.dispatch.directory import Directory
from lading_protocol.ids import Address, AgentId
from lading_protocol.offers import KnownOffer

from .builds import builds
from .report import say

AGENTS, REGIONS, TIERS = 200, tuple(f"{a}-{b}" for a in ("eu", "us", "as", "sa") for b in "abcd"), ("P", "C", "V")
ROUNDS, QUERIES = 9, 400
SCAN = "numpy scan over all offers"


class Market:
    """Offers by a seed, in a directory of ours and as columns for numpy."""

    def __init__(self, count: int, full: float, seed: int = 1) -> None:
        rng = random.Random(seed)
        weights = [1 / (n + 1) for n in range(AGENTS)]
        self.rng, self.count = rng, count
        self.agents = [AgentId(n.to_bytes(32, "big")) for n in range(AGENTS)]
        self.weights = weights
        base = unsigned_offer(bytes(20), 1, 1)
        details = {
            (region, tier): msgspec.structs.replace(base.detail, region=region, tier=tier)
            for region in REGIONS
            for tier in TIERS
        }
        self.offers: list[KnownOffer] = []
        self.free: list[int] = []
        for n, agent in enumerate(rng.choices(self.agents, weights, k=count)):
            price = rng.lognormvariate(30, 0.5)
            offer = msgspec.structs.replace(
                base.offer,
                host=n.to_bytes(20, "big"),
                agent=agent,
                price_in=int(price),
                price_out=int(price * rng.uniform(2, 4)),
                expires=int(NOW) + 9_000,
            )
            detail = details[rng.choice(REGIONS), rng.choice(TIERS)]
            self.offers.append(KnownOffer(base.id, offer, detail, base.advert))
            self.free.append(0 if rng.random() < full else rng.randrange(1, 5))
        self.directory = Directory(needs_beats=True, limit=count)
        for known, free in zip(self.offers, self.free, strict=True):
            self.directory.put(known)
            self.directory.beat(known.host, free, 0, NOW)
        self._columns()

    def _columns(self) -> None:
        offers = self.offers
        self.agent = np.array([int.from_bytes(one.agent, "big") for one in offers], np.int32)
        self.inp = np.array([one.offer.price_in for one in offers], np.float64)
        self.out = np.array([one.offer.price_out for one in offers], np.float64)
        self.region = np.array([REGIONS.index(one.detail.region) for one in offers], np.int8)
        self.tier = np.array([TIERS.index(one.detail.tier) for one in offers], np.int8)
        self.room = np.array(self.free, np.int32)
        self.beat = np.full(self.count, NOW)
        self.far = {
            near: np.array([FAR[distance(near, other)] for other in REGIONS], np.float64) for near in ("", *REGIONS)
        }

    def queries(self, count: int) -> list[tuple[AgentId, Want]]:
        rng, made = self.rng, []
        for agent in rng.choices(self.agents, self.weights, k=count):
            prompt = int(math.exp(rng.uniform(math.log(50), math.log(20_000))))
            filters = Filters(
                near=rng.choice(REGIONS), tiers=frozenset({"C", "V"}) if rng.random() < 0.2 else frozenset()
            )
            request = chat_request(rng.randbytes(4).hex() + "x" * prompt, max_tokens=rng.choice([16, 256, 2048]))
            made.append((agent, Want(request, filters=filters)))
        return made

    def scan(self, agent: AgentId, aim: Aim) -> float:
        """The best score by looking at every offer; of those that have room, or of all where none has."""
        able = (self.agent == int.from_bytes(agent, "big")) & (self.beat >= NOW - 5)
        if aim.filters.tiers:
            able &= np.isin(self.tier, [TIERS.index(tier) for tier in aim.filters.tiers])
        score = (self.inp * aim.prompt + self.out * aim.output) * self.far[aim.filters.near][self.region]
        free = able & (self.room > 0)
        chosen = np.where(free if free.any() else able, score, np.inf)
        return float(chosen[int(np.argmin(chosen))])


def cpu(action: Callable[[Any], Any], inputs: Sequence[Any]) -> tuple[float, list[Any]]:
    """CPU microseconds a call, and what came of them."""
    begun = time.process_time()
    made = [action(one) for one in inputs]
    return (time.process_time() - begun) / len(inputs) * 1e6, made


def exact(market: Market, queries: list[tuple[AgentId, Aim]]) -> tuple[float, list[Any]]:
    fleet = market.directory._fleet
    return cpu(lambda one: fleet.best(one[0], one[1], NOW), queries)


def loss(market: Market, asked: list[tuple[AgentId, Want]], found: list[Any]) -> float:
    """The worst ratio of our score to the least there is, less 1: by numpy, and a part by `rank` itself."""
    worst = 0.0
    for at, ((agent, want), one) in enumerate(zip(asked, found, strict=True)):
        ours = one[2].score / 4
        worst = max(worst, ours / market.scan(agent, aim_of(want)) - 1)
        if at % 80 == 0:
            first = rank(market.directory.candidates(agent), want, NOW)[0][0]
            if first.offer is not one[2].entry.known:
                raise SystemExit(f"rank chooses another host than the index for request {at}")
    return worst


def matching(count: int, rounds: int, label: str, build: str) -> None:
    market = Market(count, 0.3)
    ours, whole, scans, worst = [], [], [], 0.0
    for _ in range(rounds):
        asked = market.queries(QUERIES)
        aims = [(agent, aim_of(want)) for agent, want in asked]
        scan, _ = cpu(lambda one: market.scan(*one), aims[:: max(1, QUERIES * count // 10_000_000)])
        exact(market, aims)  # what is found to be full is filed as full, once
        spent, found = exact(market, aims)
        if count <= 100_000:
            worst = max(worst, loss(market, asked, found))
        chosen, _ = cpu(lambda one: market.directory.choose(one[0], one[1], NOW + 0.1, market.rng), asked)
        ours.append(spent), scans.append(scan), whole.append(chosen)  # type: ignore[func-returns-value]
    ratio = statistics.median(a / b for a, b in zip(scans, ours, strict=True))
    main = count == 100_000
    say(
        f"match_exact_{label}",
        statistics.median(ours),
        "us",
        reference=(SCAN, statistics.median(scans)),
        ratio=1 / ratio,
        bar="<= 0.05 of the reference" if label == "100k" else None,
        n=rounds,
        note=f"{build}; 30 % of the hosts are full; every score equal to the scan's" if main else "",
    )
    if count <= 100_000:
        say(f"match_loss_{label}", round(worst, 12), "of the best", bar="<= 0", n=rounds * QUERIES)
    say(f"match_whole_{label}", statistics.median(whole), "us", n=rounds, note="near-ties, prompt hashes, reasons too")


def full_fleet(count: int, rounds: int) -> None:
    for full in (0.86, 1.0):
        market = Market(count, full)
        spent = []
        for _ in range(rounds):
            aims = [(agent, aim_of(want)) for agent, want in market.queries(QUERIES)]
            exact(market, aims)
            spent.append(exact(market, aims)[0])
        rate = 1e6 / statistics.median(spent)
        say(f"match_{full:.0%}_full".replace("%", ""), rate, "1/s", bar=">= 10000", n=rounds)


def updates(count: int, rounds: int) -> None:
    market = Market(count, 0.3)
    rng, directory = market.rng, market.directory
    prices, loads = [], []
    many = min(count, 20_000)
    for turn in range(rounds):
        changed = []
        for known in rng.sample(market.offers, many):
            price = int(known.offer.price_in * rng.uniform(0.8, 1.25))
            offer = msgspec.structs.replace(known.offer, price_in=price, price_out=3 * price, sequence=turn + 2)
            changed.append(with_changes(known, offer=offer))
        spent, taken = cpu(directory.put, changed)
        if not all(taken):
            raise SystemExit("an offer with a new price was not taken")
        prices.append(1e6 / spent)
        reports = [(known.host, rng.choice([0, 1, 2, 3, 4]), 0, NOW + turn) for known in changed]
        begun = time.process_time()
        for report in reports:
            directory.beat(*report)
        loads.append(len(reports) / (time.process_time() - begun))
        exact(market, [(agent, aim_of(want)) for agent, want in market.queries(50)])
    say("match_price_changes", statistics.median(prices), "1/s", bar=">= 50000", n=rounds)
    say("match_load_updates", statistics.median(loads), "1/s", bar=">= 500000", n=rounds)


def prefixes(rounds: int) -> None:
    """Look-ups of prompts of 64 KB in an index that is full of others."""
    rng = random.Random(3)
    index = PrefixIndex()
    agent = AgentId(bytes(32))
    texts = [rng.randbytes(30_000).hex() for _ in range(600)]
    chains = [chain_of(agent, chat_request(text)) for text in texts]
    for n, chain in enumerate(chains):
        index.note(chain, Address(n.to_bytes(20, "big")))
    spent, hashed = [], []
    for _ in range(rounds):
        took, _ = cpu(index.known, chains[-400:])
        spent.append(len(chains[0]) / took * 1e6)
        hashed.append(cpu(lambda text: chain_of(agent, chat_request(text)), texts[:100])[0])
    say("match_prefix_lookup", statistics.median(spent), "blocks/s", bar=">= 5000000", n=rounds)
    say("match_prefix_hash_60kB", statistics.median(hashed), "us", n=rounds)


def measure(quick: bool, build: str) -> None:
    rounds = 3 if quick else ROUNDS
    for label, count in (("10k", 10_000), ("100k", 100_000), *(() if quick else (("1M", 1_000_000),))):
        matching(count, rounds if count < 1_000_000 else 5, label, build)
        gc.collect()
    full_fleet(100_000, rounds)
    updates(100_000, rounds)
    prefixes(rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--build", help="measure what this very process runs, which is called so")
    parser.add_argument("--plain", action="store_true", help="with --build: the bar of 100,000 offers alone")
    chosen = parser.parse_args()
    if chosen.plain:
        matching(100_000, ROUNDS, "100k_plain", chosen.build)
    elif chosen.build:
        measure(chosen.quick, chosen.build)
    else:
        again = [sys.executable, *sys.orig_argv[1:]]
        build, plain = builds()
        subprocess.run([*again, "--build", build.name], env=build.environment, check=True)
        if plain is not None:
            subprocess.run([*again, "--build", plain.name, "--plain"], env=plain.environment, check=True)


if __name__ == "__main__":
    main()
