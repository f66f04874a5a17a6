"""Two chains side by side: the real contracts on py-evm in this process, and the fake; one clock, the same keys.

Also the builders that the integration tests of the chain share.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec

from lading_contracts import events
from lading_contracts.court import CourtParams
from lading_contracts.deploy import Parameters, deploy
from lading_contracts.deployment import Contracts, Deployment
from lading_contracts.embedded.server import EmbeddedSettings, faucet_key, in_process
from lading_contracts.errors import Reverted
from lading_contracts.fake import FakeChain
from lading_contracts.port import Chain, TxReceipt
from lading_contracts.registry import Party, Role
from lading_contracts.rpc import RpcChain
from lading_contracts.transports import InProcess
from lading_protocol.ids import AgentId, TermsId, Wei
from lading_protocol.keys import PrivateKey

T = TypeVar("T")
CHAIN_ID = 31_337
START = 1_800_000_000
FAUCET = faucet_key("lading")
AGENT, CHILD = AgentId(b"\xa1" * 32), AgentId(b"\xa2" * 32)


def key(name: str) -> PrivateKey:
    return FAUCET.child(name)


PARAMETERS = Parameters(
    exit_delay=10,
    close_delay=10,
    min_stake=Wei(50),
    cooldown=100,
    court=CourtParams(
        bond=Wei(7),
        slash_bps=5_001,
        burn_bps=3_000,
        reward_bps=3_001,
        finder_bps=2_000,
        committee_size=3,
        quorum=2,
        draw_delay_blocks=1,
        commit_window=20,
        reveal_window=20,
        appeal_window=10,
        receipt_max_age=100,
        jail_time=30,
    ),
)


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return float(self.now)


class World:
    """The two chains with the contracts deployed, the actors funded, and two split tables agreed."""

    def __init__(self, actors: tuple[str, ...]) -> None:
        self.clock = Clock()
        self.loop = asyncio.new_event_loop()
        self.answerer = in_process(EmbeddedSettings(chain_id=CHAIN_ID, block_time=0), clock=self.clock)
        self.fake = FakeChain(self.clock, chain_id=CHAIN_ID)
        self.actors = {name: key(name) for name in actors}
        self.deployments = [self.run(self._prepare(chain)) for chain in self.chains()]
        assert self.deployments[0] == self.deployments[1]
        head = self.run(self.fake.block())
        assert head is not None
        self.base = head.number

    @property
    def deployment(self) -> Deployment:
        return self.deployments[0]

    def run(self, work: Awaitable[T]) -> T:
        return self.loop.run_until_complete(asyncio.ensure_future(work, loop=self.loop))

    def chains(self) -> tuple[Chain, Chain]:
        """A new adapter each time: one that outlived `reset` would remember nonces of the undone blocks."""
        return RpcChain(InProcess(self.answerer), CHAIN_ID), self.fake

    def reset(self) -> tuple[Contracts, Contracts]:
        self.clock.now = START + 1_000
        self.answerer.request("evm_revert", [hex(self.base)])
        self.fake.rewind(self.base)
        real, fake = self.chains()
        return Contracts(real, self.deployment), Contracts(fake, self.deployment)

    def mine(self, count: int) -> None:
        self.answerer.request("evm_mine", [{"blocks": count}])
        self.fake.mine(count)

    def close(self) -> None:
        self.answerer.close()
        self.loop.close()

    async def _prepare(self, chain: Chain) -> Deployment:
        deployment = await deploy(chain, FAUCET, PARAMETERS)
        await furnish(Contracts(chain, deployment), self.actors, coins=1_000)
        return deployment


async def furnish(contracts: Contracts, actors: dict[str, PrivateKey], coins: int) -> None:
    """Coins, gas and allowances for everyone; AGENT with its child, and the tables of `tables()`."""
    for actor in actors.values():
        await contracts.chain.send(FAUCET, actor.address, b"", 10**18)
        await contracts.coin.transfer(FAUCET, actor.address, coins)
        for spender in (contracts.settlement, contracts.staking, contracts.court):
            await contracts.coin.approve(actor, spender.address, 2**256 - 1)
    maker, oem = key("maker"), key("oem")
    for owner in (maker, oem):
        await contracts.chain.send(FAUCET, owner.address, b"", 10**18)
    await contracts.registry.register(maker, AGENT, royalty_bps=500)
    await contracts.registry.register(oem, CHILD, AGENT)
    await contracts.registry.agree_terms(maker, AGENT, tables()[AGENT])
    await contracts.registry.agree_terms(oem, CHILD, tables()[CHILD])


def tables() -> dict[AgentId, tuple[Party, ...]]:
    maker, oem, curator = (key(name).address for name in ("maker", "oem", "curator"))
    return {
        AGENT: (Party(maker, Role.MAKER, 3_333), Party(curator, Role.CURATOR, 1)),
        CHILD: (Party(oem, Role.OEM, 1_111), Party(maker, Role.MAKER, 777), Party(curator, Role.CURATOR, 333)),
    }


class Outcome(msgspec.Struct, frozen=True):
    """What a transaction came to: its events as a set (a lottery may order them otherwise), or the refusal."""

    events: tuple[str, ...] = ()
    refused: str = ""
    arguments: tuple[Any, ...] = ()


Verb = Callable[[Contracts], Awaitable[TxReceipt | TermsId | bytes | None]]


async def attempt(contracts: Contracts, verb: Verb) -> Outcome:
    before = await contracts.chain.block()
    assert before is not None
    try:
        await verb(contracts)
    except Reverted as error:
        return Outcome(refused=error.name, arguments=error.arguments)
    names = contracts.deployment.names()
    after = await contracts.chain.block()
    assert after is not None
    logs = await contracts.chain.logs(tuple(names), before.number + 1, after.number)
    decoded = [events.decode(names[log.address], log) for log in logs]
    return Outcome(tuple(sorted(_shown(entry.event) for entry in decoded if entry is not None)))


def _shown(event: events.Event) -> str:
    if isinstance(event, events.Drawn):
        event = msgspec.structs.replace(event, jurors=tuple(sorted(event.jurors)))
    return repr(event)
