"""The real contracts on py-evm in this process, and the fake ones: one clock, the same keys, the same block hashes.

An operation is a `Call`. Both chains must answer it alike: the same raw events in the same order, or the same refusal.
"""

import asyncio
from collections.abc import Awaitable, Iterator
from typing import Any, TypeVar

import msgspec

from lading_contracts import abi
from lading_contracts.deploy import deploy
from lading_contracts.deployment import Contracts, Deployment
from lading_contracts.embedded.server import Answerer, EmbeddedSettings, in_process
from lading_contracts.errors import Reverted
from lading_contracts.fake import FakeChain
from lading_contracts.port import Chain
from lading_contracts.rpc import RpcChain
from lading_contracts.transports import InProcess
from lading_protocol.ids import Address
from lading_protocol.receipts import StakeConsent
from property.chain_kit import FAUCET, PARAMETERS, START, furnish, key

T = TypeVar("T")
CHAIN_ID = 31_337
ACTORS = (
    *("alice", "bob", "session1", "session2", "host1", "host2", "stranger"),
    *("op2", "op3", "op4", "op5", "op6", "op7", "cold", "warm", "governor", "weaver"),
)
STAKES = {"host1": "host1", "op2": "cold", "op3": "warm", "op4": "cold", "op5": "warm", "op6": "cold", "op7": "warm"}
"""Operators that have a stake from the beginning, and their owners."""
OPENING = START + 1_000
"""The second at which every play begins."""


class Call(msgspec.Struct, frozen=True):
    """`sender` calls `verb` of a contract, named as in the deployment record. With `view` nothing is sent."""

    contract: str
    verb: str
    sender: str
    arguments: tuple[Any, ...] = ()
    view: bool = False


class Outcome(msgspec.Struct, frozen=True):
    """What came of it: raw logs (address, topics, data), a view's answer, or the refusal."""

    logs: tuple[tuple[Address, tuple[bytes, ...], bytes], ...] = ()
    answer: bytes = b""
    refused: str = ""
    arguments: tuple[Any, ...] = ()


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return float(self.now)


class Stage:
    """The fake chain with the contracts deployed and everybody furnished, and what a play needs around it."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.loop = asyncio.new_event_loop()
        self.fake = FakeChain(self.clock, chain_id=CHAIN_ID)
        self.actors = {name: key(name) for name in ACTORS}
        deployments = [self.run(self._prepare(chain)) for chain in self.chains()]
        self.deployment: Deployment = deployments[0]
        assert all(deployment == self.deployment for deployment in deployments)
        self.names = self.deployment.names()
        heads = {self.head(chain) for chain in self.chains()}
        assert len(heads) == 1, "a draw uses the same block's hash on all chains"
        self.base = heads.pop()
        self.reset()

    def chains(self) -> tuple[Chain, ...]:
        """The chains that are played on, the fake one last."""
        return (self.fake,)

    def run(self, work: Awaitable[T]) -> T:
        return self.loop.run_until_complete(asyncio.ensure_future(work, loop=self.loop))

    def head(self, chain: Chain) -> int:
        block = self.run(chain.block())
        assert block is not None
        return block.number

    def reset(self) -> None:
        """Back to the beginning."""
        self.clock.now = OPENING
        self.fake.rewind(self.base)

    def wait(self, seconds: int) -> None:
        self.clock.now += seconds

    def mine(self, count: int) -> None:
        self.fake.mine(count)

    def close(self) -> None:
        self.loop.close()

    def address(self, contract: str) -> Address:
        return getattr(self.deployment, contract)  # type: ignore[no-any-return]

    def do(self, call: Call) -> Outcome:
        """Does it on all chains, and wants them to agree."""
        first, *others = (self.run(self._one(chain, call)) for chain in self.chains())
        for other in others:
            assert first == other, (call, self._shown(first), self._shown(other))
        return first

    def model(self, name: str) -> Any:
        """The fake contract of this name in the package."""
        (address,) = [address for address, one in self.names.items() if one == name]
        return self.fake._world.contracts[address]

    def happened(self, outcome: Outcome) -> list[str]:
        """The names of its events."""
        return [abi.load(self.names[address]).events[topics[0]].name for address, topics, _ in outcome.logs]

    # --- inside ---

    async def _one(self, chain: Chain, call: Call) -> Outcome:
        to = self.address(call.contract)
        data = abi.load(self.names[to]).call(call.verb, *call.arguments)
        sender = key(call.sender)
        try:
            if call.view:
                return Outcome(answer=await chain.call(to, data, sender.address))
            receipt = await chain.send(sender, to, data)
        except Reverted as error:
            return Outcome(refused=error.name, arguments=error.arguments)
        return Outcome(tuple((log.address, log.topics, log.data) for log in receipt.logs))

    def _shown(self, outcome: Outcome) -> object:
        """An outcome that a person can read."""
        if not outcome.logs:
            return outcome
        return list(self._decoded(outcome))

    def _decoded(self, outcome: Outcome) -> Iterator[object]:
        for address, topics, data in outcome.logs:
            item = abi.load(self.names[address]).events[topics[0]]
            plain = [kind for kind, indexed in zip(item.inputs, item.indexed, strict=True) if not indexed]
            yield item.name, [topic.hex() for topic in topics[1:]], abi.decode(plain, data)

    async def _prepare(self, chain: Chain) -> Deployment:
        deployment = await deploy(chain, FAUCET, PARAMETERS)
        contracts = Contracts(chain, deployment)
        await furnish(contracts, self.actors, coins=1_000)
        for operator, owner in STAKES.items():
            paper = StakeConsent(key(owner).address).digest(deployment.staking_domain)
            consent = key(operator).sign_digest(paper)
            await contracts.staking.stake(key(owner), key(operator).address, 80, consent)
            for court in (contracts.court, contracts.lineage_court):
                await court.lodge(key(owner), key(operator).address, 10)
        return deployment


class Twins(Stage):
    """The real contracts too."""

    def __init__(self) -> None:
        self.answerer: Answerer | None = None
        super().__init__()

    def chains(self) -> tuple[Chain, ...]:
        if self.answerer is None:
            settings = EmbeddedSettings(chain_id=CHAIN_ID, block_time=0)
            self.answerer = in_process(settings, clock=self.clock)
            self.real: Chain = RpcChain(InProcess(self.answerer), CHAIN_ID)
            self.fake._world.block_hash = self._real_hash
        return self.real, self.fake

    def reset(self) -> None:
        """With a new adapter: one that outlived this would remember nonces of undone blocks."""
        super().reset()
        self._ask("evm_revert", hex(self.base))
        assert self.answerer is not None
        self.real = RpcChain(InProcess(self.answerer), CHAIN_ID)

    def mine(self, count: int) -> None:
        super().mine(count)
        self._ask("evm_mine", {"blocks": count})

    def close(self) -> None:
        if self.answerer is not None:
            self.answerer.close()
        super().close()

    def _ask(self, method: str, *parameters: Any) -> Any:
        assert self.answerer is not None
        return msgspec.json.decode(msgspec.json.encode(self.answerer.request(method, list(parameters))["result"]))

    def _real_hash(self, number: int) -> bytes:
        return bytes.fromhex(self._ask("eth_getBlockByNumber", hex(number), False)["hash"][2:])
