"""Those who act in a market: hosts that run real nodes over a disk of their own, and consumers who pay by session.

A host can die at any moment and come back with the disk it had then. Every token that its engine hands out is counted,
so that nobody can be paid for more.
"""

import asyncio
import random
import shutil
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from factories import key
from lading.dispatch import Ask, Ended, Moved, Payer, Piece
from lading_node.agents import Serving
from lading_node.core.policy import Policy
from lading_node.disk import Identity
from lading_node.engines.memory import MemoryEngine
from lading_node.engines.port import EngineSpec, Generate, Run, Started
from lading_node.node import Node, Plan
from lading_node.ports import Doors
from lading_node.store import Ledger
from lading_protocol.errors import LadingError
from lading_protocol.ids import Wei
from lading_protocol.messages import Streamed
from lading_protocol.pricing import Price, attempt_amount
from lading_protocol.receipts import StakeConsent
from simulation.node_world import AGENT, COIN, Shelf

if TYPE_CHECKING:
    from simulation.flow.world import Market

STAKE = 2000 * COIN
SURETY = 50 * COIN
CREDIT = 64
SLOTS = 4


class Work(msgspec.Struct):
    """What an engine made for one attempt."""

    prompt: int = 0
    first: int = 0
    count: int = 0


class TappedEngine(MemoryEngine):
    """Counts what it makes, and asks the market's traps before it hands out a token."""

    def __init__(self, spec: EngineSpec, delay: float, host: "Host") -> None:
        super().__init__(spec, token_delay=delay)
        self._host = host

    async def generate(self, order: Generate) -> Any:
        work = self._host.made.setdefault(order.id, Work(first=len(order.emitted)))
        async with aclosing(super().generate(order)) as events:  # type: ignore[type-var]
            async for event in events:
                if isinstance(event, Started):
                    work.prompt = event.prompt_tokens
                elif isinstance(event, Run):
                    for trap in list(self._host.market.traps):
                        await trap(self._host, bytes.fromhex(order.id.split(":")[0]), event.first)
                    work.count += len(event.ids)
                yield event


class Host:
    """`made` is what its engines made, by attempt."""

    def __init__(
        self, market: "Market", name: str, *, price: Price, seed: str = "toy", delay: float = 0.02, slots: int = SLOTS
    ) -> None:
        self.market = market
        self.name = name
        self.key = key(name)
        self.owner = key(f"owner of {name}")
        self.address = self.key.address
        self.price = price
        self.slots = slots
        self.made: dict[str, Work] = {}
        self.lives = 0
        self.alive = False
        self._seed = seed
        self._delay = delay
        self._ended: list[tuple[Ledger, asyncio.Task[None]]] = []

    @property
    def folder(self) -> Path:
        return self.market.folder / f"{self.name}{self.lives}"

    async def stake(self) -> None:
        contracts, record = self.market.contracts, self.market.record
        await contracts.coin.transfer(key("treasury"), self.owner.address, STAKE)
        await contracts.coin.allow(self.owner, record.staking, STAKE)
        consent = StakeConsent(self.owner.address).sign(record.staking_domain, self.key).signature
        await contracts.staking.stake(self.owner, self.address, STAKE, consent)
        await contracts.coin.transfer(key("treasury"), self.owner.address, SURETY)
        await contracts.coin.allow(self.owner, record.court, SURETY)
        await contracts.court.lodge(self.owner, self.address, SURETY)

    async def up(self) -> None:
        market = self.market
        identity = Identity(self.address, market.record.chain_id, market.record.settlement)
        self.ledger = Ledger.open(self.folder, identity)
        doors = Doors(
            key=self.key,
            transport=market.network.transport(self.key),
            gossip=market.network.gossip(self.key),
            contracts=market.contracts,
            ledger=self.ledger,
            packages=Shelf(self._seed, self.slots),
            engine=lambda spec: TappedEngine(spec, self._delay, self),
            clock=market.now,
            rng=random.Random(f"{market.seed} {self.name} {self.lives}"),
        )
        plan = Plan(
            agents=(Serving(AGENT, market.terms, self.price, self.slots, CREDIT),),
            listen=("/ip4/10.0.0.1/tcp/0",),
            policy=Policy(Wei(COIN), 30.0),
            drain=5.0,
        )
        self.node = Node(doors, plan)
        self.task = asyncio.get_running_loop().create_task(self.node.run())
        await self.node.started.wait()
        self.alive = True

    def kill(self, *, silently: bool = False) -> None:
        """The process dies; its disk is as it was at this moment."""
        before, self.lives = self.folder, self.lives + 1
        copy_disk(before, self.folder)
        self.alive = False
        self.market.network.kill(self.address, silently=silently)
        self._ended.append((self.ledger, self.task))
        self.task.cancel()

    async def leave(self) -> None:
        if self.alive:
            self.node.stop()
            await self.task
            self._ended.append((self.ledger, self.task))
        for ledger, task in self._ended:
            await asyncio.gather(task, return_exceptions=True)
            await ledger.close()

    @property
    def made_worth(self) -> int:
        """What all that its engines made is worth at its price (wei): nobody may pay it more."""
        return sum(attempt_amount(self.price, one.prompt, one.first, one.count) for one in self.made.values())


class Answer(msgspec.Struct):
    """What a consumer got. `ended` is None when the job failed (`error`) or was given up."""

    text: str = ""
    ids: tuple[int, ...] = ()
    ended: Ended | None = None
    error: LadingError | None = None
    moves: tuple[str, ...] = ()


class Consumer:
    def __init__(self, market: "Market", name: str) -> None:
        self.market = market
        self.key = key(name)
        self.api_key = ""

    async def settle_in(self, *, seen: bool = True) -> None:
        """Deposits and authorizes a session of the coordinator's."""
        contracts, setting = self.market.contracts, self.market.setting
        await contracts.coin.transfer(key("treasury"), self.key.address, setting.deposit)
        await contracts.coin.allow(self.key, self.market.record.settlement, setting.deposit)
        await contracts.settlement.deposit(self.key, setting.deposit)
        made = self.market.coordinator.sessions.create(self.key.address)
        expiry = int(self.market.now()) + 86_400
        await contracts.settlement.authorize(self.key, made.session, setting.cap, expiry, made.consent)
        self.api_key, self.session = made.api_key, made.session
        if seen:
            await self.payer()  # the coordinator has looked once, so that the session outlives outages of the chain

    async def payer(self) -> Payer:
        return await self.market.coordinator.sessions.admit(self.api_key)

    def begin(self, request: Streamed, cancel_at: int | None = None) -> "asyncio.Task[Answer]":
        """A request that dies with the coordinator, if it should."""
        task = asyncio.get_running_loop().create_task(self._ask(request, cancel_at))
        self.market.requests.add(task)
        task.add_done_callback(self.market.requests.discard)
        return task

    async def ask(self, request: Streamed, cancel_at: int | None = None) -> Answer:
        return await self.begin(request, cancel_at)

    async def _ask(self, request: Streamed, cancel_at: int | None) -> Answer:
        """`cancel_at`: go away once so many tokens are here (0: as soon as a host has accepted)."""
        answer = Answer()
        if not self.market.open:
            return answer  # nobody answers the door
        try:
            async with aclosing(self.market.coordinator.dispatcher.run(await self.payer(), Ask(AGENT, request))) as job:
                async for event in job:
                    match event:
                        case Piece(first, ids, text):
                            assert first == len(answer.ids), "a token was lost or repeated"
                            answer.ids += ids
                            answer.text += text
                        case Moved(code=code):
                            answer.moves += (code,)
                        case Ended():
                            answer.ended = event
                        case _:
                            pass
                    if cancel_at is not None and len(answer.ids) >= cancel_at:
                        break
        except LadingError as error:
            answer.error = error
        except asyncio.CancelledError:
            pass  # the coordinator died, and the request with it
        return answer


def copy_disk(before: Path, after: Path) -> None:
    """What a restart finds: all that was written, nothing that was on its way to the disk."""
    shutil.copytree(before, after, ignore=shutil.ignore_patterns("*-shm", "*.lock"))
