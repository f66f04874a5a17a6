"""A small real network in processes of its own, raised with the demo's Stage and Theatre, and the `lading` command."""

import asyncio
import contextlib
import io
import json
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import httpx
import msgspec
from openai import OpenAI

from lading.cli.main import main
from lading_contracts.deploy import Parameters
from lading_demo.cast import COIN, Cast, Party, party
from lading_demo.scenes import CHAT, ROOT
from lading_demo.screen import Screen
from lading_demo.stage import Stage, environment
from lading_demo.theatre import Theatre, together

T = TypeVar("T")
STORY = "Tell me a story about a fox and a lantern."


class Outcome(msgspec.Struct, frozen=True):
    """How a command ended and what it said."""

    code: int
    out: str
    err: str

    @property
    def tree(self) -> Any:
        assert self.code == 0, (self.code, self.out, self.err)
        return json.loads(self.out)

    @property
    def error(self) -> dict[str, Any]:
        """The one JSON line that a command with --json says on standard error when it fails."""
        (line,) = [line for line in self.err.splitlines() if line.startswith('{"error"')]
        found: dict[str, Any] = json.loads(line)["error"]
        assert found["exit"] == self.code
        return found


def call(*arguments: object) -> Outcome:
    """`lading …` in this process: what it prints and the code it would exit with."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(argument) for argument in arguments])
    return Outcome(code, out.getvalue(), err.getvalue())


def spawn(*arguments: object, seconds: float = 30, **more: Any) -> Outcome:
    """`lading …` as a process of its own, for what would disturb this one: daemons, limits, closed pipes."""
    command = [sys.executable, "-m", "lading.cli.main", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | more
    ended = subprocess.run(command, text=True, timeout=seconds, env=environment(), **pipes)
    return Outcome(ended.returncode, ended.stdout or "", ended.stderr)


class Quay:
    """The network of this folder's tests: embedded chain, contracts, a coordinator, two nodes that serve one agent."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runner = asyncio.Runner()
        self.stage = Stage(folder)
        self.theatre = Theatre(folder, self.stage, Screen(), Cast(str(folder)))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    async def build(self) -> None:
        t = self.theatre
        await t.raise_chain()
        await t.deploy(Parameters.devnet())
        for host in self.hosts:
            await t.fund(host, 1_100 * COIN)
        for who in (t.cast.curator, t.cast.maker):
            await t.fund(who, 0)
        await t.raise_coordinator(0.0)
        t.agents = {CHAT: await t.publish(ROOT / "agents/chat", t.cast.maker)}
        await together(*(t.stake(host) for host in self.hosts))
        for n, host in enumerate(self.hosts):
            await t.raise_node(host, f"0.2{n}", f"0.6{n}", [CHAT])
        await self.linked()

    @property
    def hosts(self) -> list[Party]:
        return self.theatre.cast.hosts[:2]

    @property
    def agent(self) -> str:
        return str(self.theatre.agents[CHAT]["agent"])

    async def linked(self) -> None:
        async def all_linked() -> bool:
            return all([await self.theatre.linked(host) for host in self.hosts])

        await self.theatre.screen.until("both nodes are linked", all_linked)

    def end(self) -> None:
        async def close() -> None:
            await self.theatre.close()
            await self.stage.__aexit__()

        self.run(close())
        self.runner.close()

    # The command line, for this network

    @property
    def network(self) -> tuple[object, ...]:
        return "--deployment", self.theatre.deployment, "--chain-url", self.theatre.chain_url

    @property
    def through(self) -> tuple[str, str]:
        return "--base-url", self.theatre.http

    def peers(self, home: Path) -> tuple[object, ...]:
        return "--peer", self.theatre.direct, "--home", home, *self.network

    # Operators and consumers

    def operator(self, name: str) -> Party:
        """A host with coins and a stake, for a node of its own."""
        who = party(name, str(self.folder), host=True)
        self.run(self.theatre.fund(who, 1_100 * COIN))
        self.run(self.theatre.stake(who))
        return who

    def consumer(self, name: str, coins: int = 20, deposit: str = "") -> Path:
        """A home folder whose key has coins, and a deposit if one is named."""
        who = party(name, str(self.folder))
        home = self.theatre.home(who)
        if coins:
            self.run(self.theatre.fund(who, coins * COIN))
        if deposit:
            assert call("wallet", "deposit", deposit, "--home", home, *self.network).code == 0
        return home

    def session(self, home: Path, cap: str = "5", hours: float = 1.0) -> dict[str, Any]:
        """A session that the coordinator has seen on chain, as `lading wallet session --json` prints it."""
        flags = ("--cap", cap, "--hours", hours, "--home", home, *self.network, *self.through, "--json")
        granted: dict[str, Any] = call("wallet", "session", *flags).tree
        self.until_state(granted["api_key"], "active")
        return granted

    def until_state(self, api_key: str, state: str) -> None:
        self.until(lambda: self.seat(api_key)["state"] == state, f"the session is {state}")

    def seat(self, api_key: str) -> dict[str, Any]:
        found: dict[str, Any] = self.get("/lading/v1/session", api_key)
        return found

    def get(self, path: str, api_key: str = "") -> Any:
        return httpx.get(self.theatre.http + path, headers={"authorization": f"Bearer {api_key}"}, timeout=20).json()

    def openai(self, api_key: str) -> OpenAI:
        return OpenAI(base_url=f"{self.theatre.http}/v1", api_key=api_key, max_retries=0, timeout=60)

    def until(self, ready: Callable[[], bool], what: str, limit: float = 30.0) -> None:
        """Outside of the runner's loop, so that `ready` may call commands."""
        deadline = time.monotonic() + limit
        while not ready():
            assert time.monotonic() < deadline, f"waited {limit:.0f} s in vain until {what}"
            time.sleep(0.1)

    def address(self, home: Path) -> str:
        return str(call("wallet", "balance", "--home", home, *self.network, "--json").tree["address"])
