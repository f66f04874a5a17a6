"""The same over JSON-RPC and the real contracts: what may go wrong with every single question that a redemption asks.

The EVM runs in this process, the clock is virtual, and each story begins at the same block.
"""

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lading_contracts.deploy import Parameters, deploy
from lading_contracts.deployment import Contracts, Deployment
from lading_contracts.embedded.server import EmbeddedSettings, faucet_key, in_process
from lading_contracts.errors import ChainUnreachable
from lading_contracts.rpc import RpcChain, RpcSettings
from lading_contracts.transactions import Fees, Unsigned, sign
from lading_contracts.transports import Answer, InProcess
from lading_net.clock import run_virtual
from lading_node import settle
from lading_protocol.ids import Address, TermsId, to_hex
from lading_protocol.keys import PrivateKey
from simulation.node_world import EPOCH
from simulation.redemption.dock import HOST, MAKER, PAYERS, POLL, RIVAL, Killed, Life, Papers, furnish
from simulation.redemption.test_faults import DISK

CHAIN_ID = 31_341
FAUCET = faucet_key("lading")
END = 200.0
ONE = PAYERS[:1]
QUICK = RpcSettings(attempts=2, backoff=0.5, inclusion_timeout=30.0, raise_fees_after=10.0, sure_after=12.0, poll=2.0)


class World:
    """The chain as it is when a story begins: contracts, terms, deposits, and gas for those who send."""

    def __init__(self) -> None:
        self.moment = EPOCH
        self.answerer = in_process(EmbeddedSettings(chain_id=CHAIN_ID, block_time=0), clock=self._clock)
        self.deployment, self.terms = run_virtual(self._open())
        self.base = self.ask("evm_snapshot")

    def _clock(self) -> float:
        with contextlib.suppress(RuntimeError):
            self.moment = EPOCH + asyncio.get_running_loop().time()
        return self.moment

    def ask(self, method: str, *params: Any) -> Any:
        return self.answerer.request(method, list(params))["result"]

    def contracts(self, line: "Line") -> Contracts:
        return Contracts(RpcChain(line, CHAIN_ID, QUICK), self.deployment)

    async def _open(self) -> tuple[Deployment, TermsId]:
        chain = RpcChain(InProcess(self.answerer), CHAIN_ID)
        for who in (*PAYERS, HOST, RIVAL, MAKER):
            await chain.send(FAUCET, who.address, b"", 10**18)
        deployment = await deploy(chain, FAUCET, Parameters.devnet())
        return deployment, await furnish(Contracts(chain, deployment), FAUCET)

    def send(self, who: PrivateKey, to: Address, data: bytes, gas: int) -> None:
        """Somebody's transaction, in a block of its own, now."""
        nonce = int(self.ask("eth_getTransactionCount", to_hex(who.address)), 16)
        self.answerer.request(
            "eth_sendRawTransaction",
            [to_hex(sign(Unsigned(CHAIN_ID, nonce, Fees(10**11, 1), gas, to, 0, data), who).raw)],
        )

    def take_back(self, raws: list[str]) -> None:
        """A reorganisation down to the beginning; what is in `raws` comes again in later blocks."""
        self.ask("evm_revert", self.base)
        self.ask("evm_mine")
        for raw in raws:
            self.answerer.request("eth_sendRawTransaction", [raw])
        self.ask("evm_mine", {"blocks": 2})


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    made = World()
    yield made
    made.answerer.close()


Mishap = Callable[["Line", str], Answer | None]


class Line:
    """A transport on which something happens at question `at`: `before` it, instead of its answer, or `after` it."""

    def __init__(self, world: World, at: int = -1, before: Mishap | None = None, after: Mishap | None = None) -> None:
        self.world = world
        self.asked: list[str] = []
        self.sent: list[str] = []
        self.dead_until = 0.0
        self.lost = 0
        self.at, self._before, self._after = at, before, after
        self._inner = InProcess(world.answerer)

    async def request(self, method: str, params: list[Any]) -> Answer:
        if asyncio.get_running_loop().time() < self.dead_until:
            raise ChainUnreachable("The line is dead.")
        here = len(self.asked) == self.at
        self.asked.append(method)
        if here and self._before is not None and (instead := self._before(self, method)) is not None:
            return instead
        if method == "eth_sendRawTransaction":
            self.sent.append(params[0])
        answer = await self._inner.request(method, params)
        if here and self._after is not None and (instead := self._after(self, method)) is not None:
            return instead
        return answer

    async def close(self) -> None:
        """The chain outlives its lines."""


def lose(line: Line, method: str) -> Answer:
    raise ChainUnreachable("Lost on the way.")


def die(line: Line, method: str) -> Answer:
    line.dead_until = asyncio.get_running_loop().time() + 90.0
    raise ChainUnreachable("The line is dead.")


def crash(line: Line, method: str) -> Answer:
    raise Killed


def take_back(line: Line, method: str) -> None:
    line.world.take_back([])


def take_back_and_include_again(line: Line, method: str) -> None:
    line.world.take_back(line.sent)


def take_back_and_crash(line: Line, method: str) -> Answer:
    line.world.take_back([])
    raise Killed


def rival(line: Line, method: str) -> None:
    world = line.world
    call = Papers(world.contracts(line), world.terms).call(ONE)
    world.send(RIVAL, world.deployment.settlement, call, 600_000)


def nonce_used(line: Line, method: str) -> None:
    line.world.send(HOST, MAKER.address, b"", 21_000)


def nonce_used_and_crash(line: Line, method: str) -> Answer:
    nonce_used(line, method)
    raise Killed


GARBAGE: tuple[Any, ...] = ("garbage", {}, 17, None, [None])
ERRORS: tuple[Any, ...] = (
    {"code": -32000, "message": "header not found"},
    {"code": -32005, "message": "daily request count exceeded, request rate limited"},
    "no",
)
BEFORE: dict[str, Mishap] = {
    "the question is lost": lose,
    "the line dies before": die,
    "crash before": crash,
    "garbage": lambda line, method: Answer(GARBAGE[line.at % len(GARBAGE)]),
    "other garbage": lambda line, method: Answer(GARBAGE[(line.at + 3) % len(GARBAGE)]),
    "an error": lambda line, method: Answer(error=ERRORS[line.at % len(ERRORS)]),
    "rival first": rival,  # type: ignore[dict-item]
    "nonce used elsewhere": nonce_used,  # type: ignore[dict-item]
    "nonce used elsewhere and crash": nonce_used_and_crash,
}
AFTER: dict[str, Mishap] = {
    "the answer is lost": lose,
    "the line dies after": die,
    "crash after": crash,
    "taken back": take_back,  # type: ignore[dict-item]
    "taken back and included again": take_back_and_include_again,  # type: ignore[dict-item]
    "taken back and crash": take_back_and_crash,
}


async def story(world: World, line: Line, folder: Path) -> None:
    papers = Papers(world.contracts(line), world.terms)
    life = Life(world.contracts(Line(world)), folder / "0", _step)
    await life.receive(papers, ONE)
    await life.end()
    life = Life(world.contracts(line), folder / "0", _step)
    await life.channels.load()
    try:
        try:
            await life.settler.settle()
        except Killed:
            shutil.copytree(folder / "0", folder / "1", ignore=shutil.ignore_patterns("*-shm", "*.lock"))
            await life.end()
            life = Life(world.contracts(Line(world)), folder / "1", _step)
            await life.channels.load()
        line.at = -1
        life.go_on()
        for _ in range(2):
            await asyncio.sleep(END / 2)
            world.ask("evm_mine")
        await asyncio.sleep(POLL)
        await life.check(world.terms, watched=True)
    finally:
        await life.end()


async def _step(label: str) -> None:
    """Only the line is perilous here."""


def play(world: World, line: Line) -> Line:
    world.ask("evm_revert", world.base)
    with tempfile.TemporaryDirectory(dir=DISK) as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(settle, "LOOK_SECONDS", 20.0)
        run_virtual(story(world, line, Path(folder)), limit=2 * END)
    return line


@pytest.fixture(scope="module")
def questions(world: World) -> list[str]:
    """What the first redemption asks when all is well."""
    line = Line(world)
    asked: list[str] = []

    async def count() -> None:
        with tempfile.TemporaryDirectory(dir=DISK) as folder:
            life = Life(world.contracts(line), Path(folder), _step)
            await life.receive(Papers(life.contracts, world.terms), ONE)
            await life.settler.settle()
            asked.extend(line.asked)
            await life.end()

    run_virtual(count())
    assert len(line.sent) == 1
    return asked


def test_a_redemption_asks_what_it_must_and_little_more(questions: list[str]) -> None:
    assert questions.count("eth_sendRawTransaction") == 1
    assert questions.count("eth_getTransactionReceipt") == 1
    assert len(questions) <= 12, questions


@pytest.mark.parametrize("name", BEFORE)
def test_a_mishap_before_the_answer(world: World, questions: list[str], name: str) -> None:
    for at in range(len(questions)):
        try:
            play(world, Line(world, at, before=BEFORE[name]))
        except BaseException as error:
            error.add_note(f"{name} at question {at}, {questions[at]}")
            raise


@pytest.mark.parametrize("name", AFTER)
def test_a_mishap_after_the_answer(world: World, questions: list[str], name: str) -> None:
    for at in range(len(questions)):
        try:
            play(world, Line(world, at, after=AFTER[name]))
        except BaseException as error:
            error.add_note(f"{name} at question {at}, {questions[at]}")
            raise
