"""The gateway beside nginx, the Rust routers, LiteLLM and aiohttp: CPU a request, time to first byte, open streams.

Every gateway stands before the same upstream and is loaded in turns, so that noise hits all alike. Load and upstream
have one core, the gateways the other. Our own gateway is a whole coordinator with 100,000 offers that reaches a host by
the job protocol: parse, key, match, lock, Noise, token count, receipt, voucher, ledger; the chain is in its memory.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import resource
import statistics
import time
from typing import Any, NamedTuple

import uvloop

from .builds import Build, builds
from .gateway_load import BODIES, MESSAGES, Client, JobClient, connect
from .gateway_peers import PLANS, Absent, Peer, peer
from .gateway_roles import MODEL, TOKENS, role
from .processes import Program, tree_cpu, tree_memory
from .report import say

OFFERS = 100_000
CONNECTIONS = 32
OURS = ("market", "relay", "aiohttp proxy")
PLAIN = "market in plain Python"
SIGNED = "market with signed receipts"
COUNTS = (1, 16, 256, 1024, 4096)
PACE = 20
CRAWL = 1.0  # seconds a token while streams are opened
TOLD = 480  # tokens that a stream can say while it is measured
MARKET = "32 connections; parse, key, match among all offers, Noise, token count, receipt, voucher, ledger"
MIB = 1 << 20


class Sizes(NamedTuple):
    """`window` is in seconds."""

    offers: int
    rounds: int
    asks: int
    lone: int
    counts: tuple[int, ...]
    window: float


FULL = Sizes(OFFERS, 7, 30, 200, COUNTS, 6.0)
QUICK = Sizes(OFFERS, 3, 4, 40, (1, 64), 1.0)


class Found(NamedTuple):
    """Medians in microseconds: CPU by way and kind, time to first byte by way. `memory` is in bytes."""

    cpu: dict[tuple[str, str], float]
    first: dict[str, float]
    memory: dict[str, int]


# Measuring ------------------------------------------------------------------------------------------------------------


async def measure(ways: dict[str, Peer], job: dict[str, str], sizes: Sizes) -> Found:
    direct = await JobClient.connect(job["endpoint"], job["offer"])
    cpu: dict[tuple[str, str], list[float]] = {(way, kind): [] for way in ways for kind in BODIES}
    first: dict[str, list[float]] = {way: [] for way in ("job", *ways) if way != "litellm"}
    for round_ in range(sizes.rounds + 1):  # the first one warms up
        for way, kind in cpu:
            asks = max(1, sizes.asks // 15) if way == "litellm" else sizes.asks
            spent = await _load(ways[way], kind, asks)
            if round_:
                cpu[way, kind].append(spent)
        for way in first:
            client: Any = direct if way == "job" else (await connect(ways[way].address, ways[way].key, 1))[0]
            await client.ask("stream")
            times = [await client.ask("stream") for _ in range(sizes.lone)]
            client.hang_up()
            if round_:
                first[way] += times
    return Found(
        {key: statistics.median(each) * 1e6 for key, each in cpu.items()},
        {way: statistics.median(each) * 1e6 for way, each in first.items()},
        {way: tree_memory(one.pid) for way, one in ways.items()},
    )


async def _load(one: Peer, kind: str, asks: int) -> float:
    """CPU seconds for each of so many requests on every connection. New connections: some close those that idle."""
    clients = await connect(one.address, one.key, CONNECTIONS)
    await asyncio.gather(*(client.repeat(kind, 1) for client in clients))
    before = tree_cpu(one.pid)
    await asyncio.gather(*(client.repeat(kind, asks) for client in clients))
    spent = tree_cpu(one.pid) - before
    for client in clients:
        client.hang_up()
    return spent / (CONNECTIONS * asks)


class Open(NamedTuple):
    """What so many open streams cost: CPU microseconds a token beside what an idle gateway takes, tokens a second that
    arrived, bytes of the gateway."""

    streams: int
    cpu: float
    rate: float
    memory: int


async def open_streams(up: Program, gate: Program, sizes: Sizes) -> list[Open]:
    """Streams are opened at a crawl: what is measured is that they run, not that all begin amid the others' tokens."""
    body = {"open": {"model": MODEL, "messages": MESSAGES, "stream": True, "max_tokens": 4000}}
    found = []
    before = gate.cpu
    await asyncio.sleep(sizes.window)
    idle = gate.cpu - before
    for count in sizes.counts:
        up.tell(CRAWL)
        clients: list[Client] = []
        answers = []
        for at in range(0, count, 64):
            some = await connect(gate.facts["http"], gate.facts["key"], min(64, count - at), body)
            answers += [client.begin("open") for client in some]
            await asyncio.gather(*(client.started.wait() for client in some))
            clients += some
        up.tell(1 / PACE)
        await asyncio.sleep(CRAWL + sizes.window / 3)
        before, tokens, begun = gate.cpu, sum(client.tokens for client in clients), time.perf_counter()
        await asyncio.sleep(sizes.window)
        _check(answers)
        passed = sum(client.tokens for client in clients) - tokens
        cpu, rate = (gate.cpu - before - idle) / passed * 1e6, passed / (time.perf_counter() - begun)
        found.append(Open(count, cpu, rate, tree_memory(gate.process.pid)))
        for client in clients:
            client.hang_up()
        await asyncio.sleep(3)
    return found


def _check(answers: list[asyncio.Future[None]]) -> None:
    for answer in answers:
        if answer.done():
            answer.result()
            raise SystemExit("a stream ended that should still run")


# The report -----------------------------------------------------------------------------------------------------------


class Report:
    def __init__(self, found: Found, titles: dict[str, str], absent: dict[str, str], rounds: int, build: Build) -> None:
        self._found, self._titles, self._absent, self._rounds, self._build = found, titles, absent, rounds, build

    def cpu(self, name: str, way: str, kind: str, other: str, bar: str | None, note: str = "") -> None:
        """CPU of one way, beside another's."""
        unit = "us" if kind == "json" else f"us/{TOKENS} tokens"
        if missing := self._absent.get(other) or self._absent.get(way):
            say(name, None, unit, bar=bar, note=f"absent: {missing}")
            return
        value, reference = self._found.cpu[way, kind], self._found.cpu[other, kind]
        say(name, value, unit, reference=(self._titles[other], reference), bar=bar, n=self._rounds, note=note)

    def better(self, kind: str) -> str:
        """The router that takes less."""
        routers = [way for way in ("vllm-router", "sglang-router") if way not in self._absent]
        return min(routers, key=lambda way: self._found.cpu[way, kind], default="vllm-router")

    def all(self, lone: int) -> None:
        for kind, bar in (("json", "<= 1.5 of the reference"), ("stream", "<= 1.2 of the reference")):
            note = f"our HTTP server with no market behind it, {self._build.name}"
            self.cpu(f"gateway_relay_{kind}", "relay", kind, "nginx", bar, note)
        # With the session's MAC a host signs its receipts later, many at once (decision 36); else each by itself.
        for kind, bar, signed in (("json", 1.6, 2.5), ("stream", 0.75, 0.75)):
            router, name = self.better(kind), self._build.name
            note = f"{name}; {MARKET}; session MAC"
            self.cpu(f"gateway_market_{kind}", "market", kind, router, f"<= {bar} of the reference", note)
            note = f"{name}; the host signs each receipt, and it is checked at once"
            self.cpu(f"gateway_market_{kind}_signed", SIGNED, kind, router, f"<= {signed} of the reference", note)
            if PLAIN in self._titles:
                self.cpu(f"gateway_market_{kind}_plain", PLAIN, kind, router, None, "in plain Python; session MAC")
        for kind, bar in (("json", ">= 40 of the reference"), ("stream", ">= 150 of the reference")):
            self.cpu(f"litellm_{kind}", "litellm", kind, "market", bar, "LiteLLM's cost in multiples of ours")
        for kind in BODIES:
            self.cpu(f"gateway_market_{kind}_to_aiohttp", "market", kind, "aiohttp proxy", None)
            for way in ("nginx", "vllm-router", "sglang-router"):
                self.cpu(f"{way}_{kind}".replace("-", "_"), way, kind, "direct", None, "for comparison")
        self._first(lone)
        for way, held in self._found.memory.items():
            if way not in ("direct", "market", SIGNED, PLAIN, "aiohttp proxy"):
                say(f"memory_{way}".replace("-", "_"), held / MIB, "MiB", note=self._titles[way])
        say("memory_gateway_with_offers", self._found.memory["market"] / MIB, "MiB", note="every offer known")

    def _first(self, lone: int) -> None:
        first, n = self._found.first, self._rounds * lone
        note = f"over a direct call to the same host by the job protocol, which takes {first['job']:.0f} us"
        say(
            "gateway_added_ttfb_p50",
            first["market"] - first["job"],
            "us",
            bar="<= 350",
            n=n,
            note=f"{self._build.name}; {note}",
        )
        if PLAIN in first:
            say("gateway_added_ttfb_p50_plain", first[PLAIN] - first["job"], "us", n=n, note="in plain Python")
        for way in first:
            if way not in ("job", "direct", "market", SIGNED, PLAIN):
                say(
                    f"{way}_added_ttfb_p50".replace("-", "_").replace(" ", "_"),
                    first[way] - first["direct"],
                    "us",
                    n=n,
                    note=f"{self._titles[way]}, over a direct call by HTTP, which takes {first['direct']:.0f} us",
                )


def report_streams(found: list[Open], build: Build) -> None:
    alone, most = found[0], found[-1]
    for one in found:
        rate = one.rate / one.streams
        note = f"{build.name}; {one.streams} streams; {rate:.1f} tokens/s each arrived of {PACE} sent"
        say(f"gateway_token_at_{one.streams}_streams", one.cpu, "us/token", note=note)
    worst = max(found[1:], key=lambda one: one.cpu)
    reference = "one stream", alone.cpu
    note = f"the dearest number of streams, {worst.streams}"
    say("gateway_token_growth", worst.cpu, "us/token", reference=reference, bar="<= 1.5 of the reference", note=note)
    kept = most.rate / most.streams / PACE
    note = f"arrived in time at {most.streams} open streams"
    say("gateway_pace_kept", kept, "of the tokens", bar=">= 0.95", note=note)
    each = (most.memory - alone.memory) / (most.streams - alone.streams) / 1024
    say("gateway_memory_per_stream", each, "KiB", bar="<= 60", note=f"at {most.streams} open streams")
    say("gateway_memory", alone.memory / MIB, "MiB", bar="<= 80", note=f"{build.name}; with one stream and one host")


# The run --------------------------------------------------------------------------------------------------------------


def compare(sizes: Sizes, cores: tuple[int | None, int | None]) -> None:
    near, far = cores
    build, plain = builds()
    with contextlib.ExitStack() as stack:
        up = stack.enter_context(role("upstream", {}, near))
        offers, told = {"offers": sizes.offers}, {"upstream": up.facts["http"]}
        gate = stack.enter_context(role("gateway", offers, far, build))
        job = join(up, gate)
        ways = {
            "direct": Peer("a direct call, a fixed answer", up.facts["http"], "none", up.process.pid),
            "market": _ours(gate, f"our gateway, whole market path, {build.name}"),
            "relay": _ours(stack.enter_context(role("relay", told, far, build)), f"our HTTP server, {build.name}"),
            "aiohttp proxy": _ours(stack.enter_context(role("proxy", told, far)), "bare aiohttp proxy"),
        }
        signing = stack.enter_context(role("gateway", offers, far, build))
        join(stack.enter_context(role("upstream", {"binds": False}, near)), signing)
        ways[SIGNED] = _ours(signing, f"our gateway, every receipt signed, {build.name}")
        if plain is not None:
            other = stack.enter_context(role("gateway", offers, far, plain))
            join(stack.enter_context(role("upstream", {}, near)), other)
            ways[PLAIN] = _ours(other, f"our gateway, whole market path, {plain.name}")
        absent: dict[str, str] = {}
        for name in PLANS:
            made = stack.enter_context(peer(name, up.facts["http"], far))
            if isinstance(made, Absent):
                absent[name] = made.reason
            else:
                ways[name] = made
        found = uvloop.run(measure(ways, job, sizes))
    titles = {way: one.name for way, one in ways.items()}
    Report(found, titles, absent, sizes.rounds, build).all(sizes.lone)


def many(sizes: Sizes, cores: tuple[int | None, int | None]) -> None:
    near, far = cores
    build, _ = builds()
    with (
        role("upstream", {"length": TOLD, "paced": True}, near) as up,
        role("gateway", {}, far, build) as gate,
    ):
        join(up, gate)
        report_streams(uvloop.run(open_streams(up, gate, sizes)), build)


def _ours(program: Program, title: str) -> Peer:
    return Peer(title, program.facts["http"], program.facts.get("key", "none"), program.process.pid)


def join(up: Program, gate: Program) -> dict[str, str]:
    """The host joins the gateway's network; where it is reached without a gateway."""
    import httpx

    up.tell({name: gate.facts[name] for name in ("endpoint", "agent", "terms", "record")})
    job: dict[str, str] = up.hear()
    for _ in range(200):
        listed = httpx.get(f"{gate.facts['http']}/v1/models").json()["data"]
        if listed:
            return job
        time.sleep(0.1)
    raise SystemExit("the host never reached the gateway")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a minute, for a check that it runs")
    parser.add_argument("--only", choices=("compare", "streams"), help="half of it")
    parser.add_argument("--offers", type=int, default=OFFERS, help="how many the gateway chooses from")
    chosen = parser.parse_args()
    sizes = (QUICK if chosen.quick else FULL)._replace(offers=chosen.offers)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    usable = sorted(os.sched_getaffinity(0))
    cores = (usable[0], usable[1]) if len(usable) > 1 else (None, None)
    if cores[0] is not None:
        os.sched_setaffinity(0, {cores[0]})
    if chosen.only != "streams":
        compare(sizes, cores)
    if chosen.only != "compare":
        many(sizes, cores)


if __name__ == "__main__":
    main()
