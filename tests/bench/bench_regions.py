"""What a coordinator needs that indexes one region of ten in full, against one that has all 100,000 offers.

Memory is that of a process of its own, before and after; offers are as large as signed ones. Traffic of summaries is
counted where they are published, with prices that walk and slots that come and go; what a link costs is the constant
that bench_discovery measures. Answers are those of tests/simulation/market: the same jobs, with and without the view.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import msgspec

from factories import NOW, key, network, unsigned_offer, with_changes
from lading.core.atlas import Atlas
from lading.core.matching import Filters, Want, aim_of
from lading.core.quotes import want_of
from lading.dispatch.directory import MOST_QUOTED, Directory
from lading_coordinator.regions.telling import Telling
from lading_coordinator.regions.view import memory
from lading_net.clock import run_virtual
from lading_protocol.ids import AgentId
from lading_protocol.messages import Advert, encode
from lading_protocol.offers import KnownOffer
from lading_protocol.summaries import (
    KnownSummary,
    Stock,
    SummaryAd,
    SummaryDetail,
    check_summary,
    make_summary,
    paged,
)
from simulation.market.regional import BySummary
from simulation.market.report import play_on
from simulation.market.routers import Lading
from simulation.market.traffic import Shape, machines, trace

from .report import say

REGIONS, AGENTS = 10, 200
HOSTS = 100_000
# bench_discovery: bytes a second of a link between a host and a coordinator, and carried for one byte that is gossiped.
LINK, SPREAD = 146, 10.7
DETAILS = [f"region-{n}" for n in range(REGIONS)]


def offers(count: int, seed: int, regions: int) -> Iterator[KnownOffer]:
    """As they arrive: each with a detail and an advert of its own."""
    rng = random.Random(seed)
    weights = [1 / (n + 1) for n in range(AGENTS)]
    decode = msgspec.msgpack.Decoder(Advert).decode
    for n, agent in enumerate(rng.choices(range(AGENTS), weights, k=count)):
        price = int(rng.lognormvariate(30, 0.5))
        known = unsigned_offer(
            (seed * HOSTS + n).to_bytes(20, "big"),
            price,
            int(price * rng.uniform(2, 4)),
            agent=agent.to_bytes(2, "big") * 16,
            expires=int(NOW) + 80_000,
            region=DETAILS[(seed + n) % regions if regions > 1 else seed % REGIONS],
            endpoints=(f"/ip4/10.{n >> 16}.{n >> 8 & 255}.{n & 255}/tcp/4101/p2p/16Uiu2HAm{n:044d}",),
            numeric="onnx-f32-cpu",
        )
        advert = decode(encode(Advert(known.offer.words() + rng.randbytes(65), known.detail)))
        yield with_changes(known, detail=advert.detail, advert=advert)


def index(count: int, seed: int, regions: int) -> Directory:
    directory = Directory(needs_beats=True)
    rng = random.Random(seed)
    for known in offers(count, seed, regions):
        directory.replace(known.host, [known])
        directory.beat(known.host, rng.randrange(5), 0, NOW)
    return directory


def stocks_of(directory: Directory, now: float = NOW) -> list[Stock]:
    return [stock for some in directory.stocks(now) for stock in some]


def summarise(atlas: Atlas, stocks: list[Stock], seed: int) -> None:
    """One coordinator's summary, off the wire."""
    who, domain = key(f"coordinator {seed}"), network().settlement_domain
    pages = paged(stocks)
    for number, page in enumerate(pages):
        detail = SummaryDetail((f"/ip4/10.{seed}.0.1/tcp/4600",), number, len(pages), page)
        summary = make_summary(SummaryAd(who.address, 1, int(NOW) + 180, bytes(32)), detail, domain, who)
        again = msgspec.msgpack.decode(encode(summary), type=type(summary))
        assert atlas.put(check_summary(again, domain, NOW), NOW)


# Memory: each case in a process of its own


def hold_all() -> object:
    return index(HOSTS, 0, REGIONS)


def hold_region() -> object:
    return index(HOSTS // REGIONS, 0, 1)


def hold_region_and_summaries() -> object:
    own, atlas = hold_region(), Atlas(key("own").address)
    for seed in range(1, REGIONS):
        summarise(atlas, _others(seed), seed)
    assert atlas.size >= 0.9 * (REGIONS - 1) * AGENTS
    return own, atlas


def hold_region_and_quotes() -> object:
    """With as many quoted hosts as there may be."""
    held = hold_region_and_summaries()
    directory = held[0]  # type: ignore[index]
    for known in offers(MOST_QUOTED, 3, 1):
        directory.quote(known, 3, 0, NOW)
    assert directory.quoted == MOST_QUOTED
    return held


def hold_full_atlas() -> object:
    atlas = Atlas(key("own").address)
    for seed in range(20):
        detail_of = [
            Stock(_agent(seed, n), f"region-{n % 50}", 9, 40, 4096, _corners(n), (("P", "exact"), ("V", "exact")))
            for n in range(1_024)
        ]
        for number, page in enumerate(paged(detail_of)):
            ad = SummaryAd(key(f"c{seed}").address, 1, int(NOW) + 180, bytes(32))
            split = len(paged(detail_of))
            again = msgspec.msgpack.decode(
                encode(SummaryDetail(("/ip4/10.0.0.1/tcp/1",), number, split, page)), type=SummaryDetail
            )
            atlas.put(KnownSummary(ad, again), NOW)
    return atlas


def _agent(seed: int, n: int) -> bytes:
    return (seed * 1_024 + n).to_bytes(2, "big") * 16


def _corners(n: int) -> tuple[tuple[str, str], ...]:
    return tuple((str(10**13 + 7 * n + k), str(3 * 10**13 + n - k)) for k in range(3))


def _others(seed: int) -> list[Stock]:
    """Worked out in another process, so that what it takes is not ours."""
    out = subprocess.run(
        [sys.executable, "-m", "tests.bench.bench_regions", "--stocks", str(seed)], capture_output=True, check=True
    )
    return msgspec.msgpack.decode(out.stdout, type=list[Stock])


CASES: dict[str, Callable[[], object]] = {
    "all": hold_all,
    "region": hold_region,
    "region_and_summaries": hold_region_and_summaries,
    "region_and_quotes": hold_region_and_quotes,
    "full_atlas": hold_full_atlas,
}


def weigh(case: str) -> float:
    out = subprocess.run(
        [sys.executable, "-m", "tests.bench.bench_regions", "--case", case], capture_output=True, check=True
    )
    return float(out.stdout)


def tell_memory() -> None:
    empty = 0.0
    held = {case: weigh(case) - empty for case in CASES}
    whole = held["all"]
    say("regions_memory_all", whole, "MB", note="100,000 offers in full, of 200 agents in ten regions")
    reference = ("all 100,000 offers", whole)
    say(
        "regions_memory_one",
        held["region"],
        "MB",
        reference=reference,
        note="10,000 offers of one region, no summaries",
    )
    say(
        "regions_memory_one_and_summaries",
        held["region_and_summaries"],
        "MB",
        reference=reference,
        bar="<= 0.15 of the reference",
        note="10,000 offers, and summaries of the nine others",
    )
    say(
        "regions_memory_most_quotes",
        held["region_and_quotes"],
        "MB",
        reference=reference,
        note=f"the same and {MOST_QUOTED:,} quoted hosts, the most there may be",
    )
    say(
        "regions_memory_hostile",
        held["full_atlas"],
        "MB",
        note="the most that summaries may fill, however many are told",
    )


# Traffic


async def _published(seconds: float) -> tuple[int, int, int]:
    """Messages and bytes that one coordinator of 10,000 hosts publishes, and pages of the whole."""
    loop, rng = asyncio.get_running_loop(), random.Random(5)
    directory = index(HOSTS // REGIONS, 0, 1)
    hosts = directory.offers()

    def clock() -> float:
        return NOW + loop.time()

    telling = Telling(directory, Atlas(key("own").address), ("/ip4/10.0.0.1/tcp/4600",), clock, rng, 5.0)
    gossip = Counted()
    publishing = asyncio.create_task(telling.publish(gossip, network().settlement_domain, key("own")))
    sequence = 1
    while loop.time() < seconds:
        await asyncio.sleep(1.0)
        sequence += 1
        for at in rng.sample(range(len(hosts)), len(hosts) // 300):  # each host changes its price in five minutes
            known = hosts[at]
            offer = msgspec.structs.replace(
                known.offer, sequence=sequence, price_in=max(1, int(known.offer.price_in * rng.uniform(0.95, 1.05)))
            )
            hosts[at] = with_changes(known, offer=offer)
            directory.put(hosts[at])
        for known in hosts:
            directory.beat(known.host, rng.randrange(5), 0, clock())
    publishing.cancel()
    return gossip.messages, gossip.bytes, len(paged(stocks_of(directory, clock())))


class Counted:
    """A Gossip that only counts what is published."""

    def __init__(self) -> None:
        self.messages = self.bytes = 0

    async def publish(self, topic: str, data: bytes) -> None:
        self.messages += 1
        self.bytes += len(data)


def tell_traffic(seconds: float) -> None:
    messages, count, pages = run_virtual(_published(seconds), seed=1, limit=10 * seconds)
    rate = count / seconds
    say(
        "regions_summary_bytes",
        rate,
        "B/s",
        note=f"published by a coordinator of 10,000 hosts and 200 agents: {messages} messages of {pages} pages in "
        f"{seconds:g} s; prices change within five minutes, slots every second",
    )
    full, region = HOSTS * LINK, HOSTS // REGIONS * LINK
    heard = (REGIONS - 1) * rate * SPREAD
    say(
        "regions_control_traffic",
        (region + heard) / 1e3,
        "kB/s",
        reference=("links to all 100,000 hosts", full / 1e3),
        bar="<= 0.2 of the reference",
        note=f"links to 10,000 hosts and, with gossip's spread of {SPREAD}, {heard / 1e3:.1f} kB/s of summaries of "
        f"nine others; {LINK} B/s a link as bench-discovery measures",
    )


# Time


def tell_time(rounds: int) -> None:
    directory, rng = index(HOSTS // REGIONS, 0, 1), random.Random(1)
    aim = aim_of(Want(_request(), filters=Filters(near="region-0")))
    agents = [AgentId(n.to_bytes(2, "big") * 16) for n in range(AGENTS)]
    surveys, asks, looks, checks = [], [], [], []
    stocks = stocks_of(directory)
    atlas = Atlas(key("own").address)
    domain, who = network().settlement_domain, key("one")
    page = paged(stocks)[0]
    summary = make_summary(
        SummaryAd(who.address, 1, int(NOW) + 180, bytes(32)),
        SummaryDetail((), 0, len(paged(stocks)), page),
        domain,
        who,
    )
    for seed in range(1, REGIONS):
        summarise(atlas, [msgspec.structs.replace(one, region=f"region-{seed}") for one in stocks], seed)
    for _ in range(rounds):
        begun = time.process_time()
        stocks_of(directory)
        surveys.append((time.process_time() - begun) * 1e3)
        begun = time.process_time()
        for agent in agents:
            directory.quotable(agent, aim, 16, NOW, rng)
        asks.append((time.process_time() - begun) / AGENTS * 1e6)
        begun = time.process_time()
        for agent in agents:
            atlas.hints(agent, aim, NOW)
        looks.append((time.process_time() - begun) / AGENTS * 1e6)
        begun = time.process_time()
        check_summary(summary, domain, NOW)
        checks.append((time.process_time() - begun) * 1e6)
    say(
        "regions_survey",
        statistics.median(surveys),
        "ms",
        n=rounds,
        note="10,000 offers of 200 agents summed up, at most every 5 s",
    )
    say("regions_answer", statistics.median(asks), "us", n=rounds, note="the offers for one question, 16 of an agent's")
    say(
        "regions_hints",
        statistics.median(looks),
        "us",
        n=rounds,
        note="whom to ask, of nine coordinators; never within a request that is served",
    )
    say(
        "regions_summary_checked",
        statistics.median(checks),
        "us",
        n=rounds,
        note=f"a page of {len(page)} stocks, with its signature",
    )
    assert want_of(agents[0], aim)


def _request() -> object:
    from factories import chat_request

    return chat_request("x" * 2000, max_tokens=300)


# Answers


def tell_answers(hosts: int) -> None:
    for name, skewed, load in (("even", False, 0.8), ("one_door", True, 0.5)):
        shape = Shape(hosts=hosts, seconds=9.0, warm=4.0, load=load)
        made = machines(6, shape)
        jobs = trace(6, shape, sum(one.slots for one in made))
        if skewed:
            jobs = [msgspec.structs.replace(job, gateway=0) for job in jobs]
        full, ours = (play_on(made, jobs, shape, (policy, 6)) for policy in (Lading, BySummary))
        where = "all jobs come to one of four regions" if skewed else "four regions with as many jobs each"
        note = f"{hosts:,} hosts, {ours.jobs:,} jobs, {where}"
        say(
            f"regions_cost_{name}",
            ours.cost,
            "of list price",
            reference=("a view of all hosts", full.cost),
            bar="<= 1.15 of the reference" if skewed else "<= 1.05 of the reference",
            note=note,
        )
        say(
            f"regions_first_token_{name}",
            ours.p50,
            "s",
            reference=("a view of all hosts", full.p50),
            note=f"p50; p99 {ours.p99:.2f} against {full.p99:.2f} s",
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--case", default="")
    parser.add_argument("--stocks", type=int, default=0)
    chosen = parser.parse_args()
    if chosen.case:
        before = memory()
        held = CASES[chosen.case]()
        print((memory() - before) / 1e6)
        del held
        return
    if chosen.stocks:
        sys.stdout.buffer.write(encode(stocks_of(index(HOSTS // REGIONS, chosen.stocks, 1))))  # type: ignore[arg-type]
        return
    tell_memory()
    tell_traffic(60.0 if chosen.quick else 300.0)
    tell_time(5 if chosen.quick else 21)
    tell_answers(1_500 if chosen.quick else 5_000)


if __name__ == "__main__":
    main()
