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
from lading_contracts.embedded.server import EmbeddedSettings, in_process
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


class Twins:
    def __init__(self) -> None:
        self.clock = Clock()
        self.loop = asyncio.new_event_loop()
        self.answerer = in_process(EmbeddedSettings(chain_id=CHAIN_ID, block_time=0), clock=self.clock)
        self.fake = FakeChain(self.clock, chain_id=CHAIN_ID)
        self.fake._world.block_hash = self._real_hash
        self.actors = {name: key(name) for name in ACTORS}
        deployments = [self.run(self._prepare(chain)) for chain in self._adapters()]
        assert deployments[0] == deployments[1]
        self.deployment: Deployment = deployments[0]
        self.names = self.deployment.names()
        heads = [self.run(chain.block()) for chain in self._adapters()]
        assert heads[0] is not None
        assert heads[1] is not None
        assert heads[0].number == heads[1].number, "a draw uses the same block's hash on both"
        self.base = heads[0].number
        self.real: Chain
        self.reset()

    def run(self, work: Awaitable[T]) -> T:
        return self.loop.run_until_complete(asyncio.ensure_future(work, loop=self.loop))

    def reset(self) -> None:
        """Back to the beginning, with a new adapter: one that outlived this would remember nonces of undone blocks."""
        self.clock.now = OPENING
        self.answerer.request("evm_revert", [hex(self.base)])
        self.fake.rewind(self.base)
        self.real = self._adapters()[0]

    def wait(self, seconds: int) -> None:
        self.clock.now += seconds

    def mine(self, count: int) -> None:
        self.answerer.request("evm_mine", [{"blocks": count}])
        self.fake.mine(count)

    def close(self) -> None:
        self.answerer.close()
        self.loop.close()

    def address(self, contract: str) -> Address:
        return getattr(self.deployment, contract)  # type: ignore[no-any-return]

    def both(self, call: Call) -> Outcome:
        """Does it on both chains, and wants them to agree."""
        on_real, on_fake = (self.run(self._one(chain, call)) for chain in (self.real, self.fake))
        assert on_real == on_fake, (call, self._shown(on_real), self._shown(on_fake))
        return on_real

    def model(self, name: str) -> Any:
        """The fake contract of this name in the package."""
        (address,) = [address for address, one in self.names.items() if one == name]
        return self.fake._world.contracts[address]

    def fake_contracts(self) -> Contracts:
        return Contracts(self.fake, self.deployment)

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

    def _adapters(self) -> tuple[Chain, Chain]:
        return RpcChain(InProcess(self.answerer), CHAIN_ID), self.fake

    def _real_hash(self, number: int) -> bytes:
        found = msgspec.json.encode(self.answerer.request("eth_getBlockByNumber", [hex(number), False])["result"])
        return bytes.fromhex(msgspec.json.decode(found)["hash"][2:])

    async def _prepare(self, chain: Chain) -> Deployment:
        deployment = await deploy(chain, FAUCET, PARAMETERS)
        contracts = Contracts(chain, deployment)
        await furnish(contracts, self.actors, coins=1_000)
        for operator, owner in STAKES.items():
            paper = StakeConsent(key(owner).address).digest(deployment.staking_domain)
            consent = key(operator).sign_digest(paper)
            await contracts.staking.stake(key(owner), key(operator).address, 80, consent)
        return deployment
