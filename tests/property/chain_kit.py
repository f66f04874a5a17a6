"""The keys, parameters and tables of every test that deploys the contracts."""

from lading_contracts.deploy import Parameters
from lading_contracts.deployment import Contracts
from lading_contracts.embedded.server import faucet_key
from lading_contracts.parameters import CourtParams, MarketParams
from lading_contracts.registry import Party, Role
from lading_protocol.ids import Address, AgentId, Wei
from lading_protocol.keys import PrivateKey

CHAIN_ID = 31_337
START = 1_800_000_000
FAUCET = faucet_key("lading")
AGENT, CHILD = AgentId(b"\xa1" * 32), AgentId(b"\xa2" * 32)


def key(name: str) -> PrivateKey:
    return FAUCET.child(name)


PARAMETERS = Parameters(
    exit_delay=10,
    close_delay=10,
    governor=key("governor").address,
    timelock_delay=20,
    min_stake=Wei(50),
    cooldown=500,
    epoch_genesis=START + 999,
    epoch_length=30,
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
        answer_window=15,
        vote_deposit=Wei(3),
    ),
    market=MarketParams(
        share_deposit=Wei(5),
        promotion_deposit=Wei(3),
        promotion_reserve=Wei(4),
        promotion_slots=2,
        lineage_bps=3_333,
    ),
)
"""Short times and small odd amounts: what is divided leaves a rest."""


async def furnish(contracts: Contracts, actors: dict[str, PrivateKey], coins: int) -> None:
    """Coins, gas and allowances for everyone; AGENT with its child, and the tables of `tables()`."""
    people = {**{name: key(name) for name in ("maker", "oem", "curator")}, **actors}
    for actor in people.values():
        await contracts.chain.send(FAUCET, actor.address, b"", 10**18)
        await contracts.coin.transfer(FAUCET, actor.address, coins)
        for spender in spenders(contracts):
            await contracts.coin.approve(actor, spender, 2**256 - 1)
    maker, oem = key("maker"), key("oem")
    await contracts.registry.register(maker, AGENT, royalty_bps=500)
    await contracts.registry.register(oem, CHILD, AGENT)
    await contracts.registry.set_policy(key("curator"), Role.CURATOR, 1)
    await contracts.registry.agree_terms(maker, AGENT, tables()[AGENT])
    await contracts.registry.agree_terms(oem, CHILD, tables()[CHILD])


def spenders(contracts: Contracts) -> tuple[Address, ...]:
    """Every contract that takes coins."""
    record = contracts.deployment
    courts, auctions = (record.court, record.lineage_court), (record.share_auctions, record.promotion_auctions)
    return record.settlement, record.staking, *courts, *auctions, record.leases


def tables() -> dict[AgentId, tuple[Party, ...]]:
    maker, oem, curator = (key(name).address for name in ("maker", "oem", "curator"))
    return {
        AGENT: (Party(maker, Role.MAKER, 3_333), Party(curator, Role.CURATOR, 1)),
        CHILD: (Party(oem, Role.OEM, 1_111), Party(maker, Role.MAKER, 777), Party(curator, Role.CURATOR, 333)),
    }
