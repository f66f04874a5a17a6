"""What must hold in every market, whatever befell it: the books balance to the wei, and nobody is paid for nothing.

`check_always` holds at any moment, `check_settled` once all is quiet and redeemed.
"""

from collections import defaultdict

import msgspec

from factories import key
from lading_contracts.settlement import ChannelKey
from lading_node.core.channel import headroom, outstanding
from lading_protocol.ids import Address
from lading_protocol.pricing import attempt_amount
from simulation.flow.answers import unbroken
from simulation.flow.people import CREDIT, Host
from simulation.flow.world import COORDINATOR, PARTIES, SUPPLY_HOLDER, Market
from simulation.node_world import AGENT


class Account(msgspec.Struct):
    """One channel, as payer and chain see it (wei)."""

    promised: int = 0
    locked: int = 0
    redeemed: int = 0


async def channels(market: Market) -> dict[tuple[Address, Address], Account]:
    """By signer and host: all that were ever paid into."""
    found: dict[tuple[Address, Address], Account] = {}
    for consumer in market.consumers.values():
        for held, paid in market.coordinator.purse.channels(consumer.session):
            where = ChannelKey(held.signer, held.host, held.terms, held.epoch)
            on_chain = await market.contracts.settlement.channel(where)
            found[held.signer, held.host] = Account(paid.cumulative, on_chain.locked, on_chain.redeemed)
    return found


async def check_always(market: Market) -> None:
    """Needs the chain to answer."""
    assert not market.chain.down
    await _check_coins(market)
    for (_, address), account in (await channels(market)).items():
        assert account.redeemed <= account.locked, account
        assert account.redeemed <= account.promised, f"more was redeemed than was signed: {account}"
        assert account.promised >= 0
        assert market.host_at(address)
    for host in market.hosts.values():
        check_host(host)


def check_host(host: Host) -> None:
    """The host never works further ahead of payment than its offer says, nor takes more than its work is worth."""
    if not host.alive:
        return
    for channel in host.node.channels.all():
        assert headroom(channel) >= 0, f"{host.name} works {-headroom(channel)} wei too far ahead of payment"
        assert channel.signed <= host.made_worth, f"{host.name} was promised more than it made"


async def _check_coins(market: Market) -> None:
    """Every coin is somewhere: the supply is the sum of all purses, and Settlement holds exactly what it owes."""
    coin, settlement, record = market.contracts.coin, market.contracts.settlement, market.record
    people = [SUPPLY_HOLDER, COORDINATOR, *(key(name) for name in ("maker", "oem", "curator"))]
    people += [consumer.key for consumer in market.consumers.values()]
    people += [who for host in market.hosts.values() for who in (host.key, host.owner)]
    held = [await coin.balance(who.address) for who in people]
    held += [await coin.balance(contract) for contract in (record.settlement, record.staking, record.court)]
    assert sum(held) == await coin.supply()

    free = sum([(await settlement.account(one.key.address)).free for one in market.consumers.values()])
    locked = sum(one.locked - one.redeemed for one in (await channels(market)).values())
    claimed = sum([await settlement.claimed(market.terms, k) for k in range(len(PARTIES))])
    hosts = sum([await settlement.host_balance(host.address) for host in market.hosts.values()])
    owing = free + locked + await settlement.earned(market.terms) - claimed + hosts
    assert await coin.balance(record.settlement) == owing


def owed(market: Market) -> dict[tuple[Address, Address], int]:
    """What each session owes each host for all jobs that the coordinator has accounts of."""
    sums: dict[tuple[Address, Address], int] = defaultdict(int)
    for ended in market.ended:
        for part in ended.parts:
            sums[ended.signer, part.host] += part.amount
    return dict(sums)


def check_answers(market: Market) -> None:
    """No token lost, repeated or invented, and each token is owed to exactly one host."""
    for ended in market.ended:
        _, ids, _ = unbroken(ended.request)
        assert ended.emitted == ids[: len(ended.emitted)]
        at = 0
        for part in ended.parts:
            assert part.first == at
            at += part.tokens
        assert at == len(ended.emitted)


async def check_settled(market: Market, *, exact: bool = True) -> None:
    """Every wei that was owed is redeemed and split. `exact` unless a coordinator died with accounts unwritten."""
    await check_always(market)
    check_answers(market)
    accounts, due = await channels(market), owed(market)
    for who, account in accounts.items():
        host = market.host_at(who[1])
        assert account.redeemed == account.promised, f"{host.name} did not redeem all that was signed: {account}"
        assert account.promised <= host.made_worth
        if exact:
            assert account.promised == due.get(who, 0), f"{host.name}: {account}, due {due.get(who, 0)}"
    assert set(due) <= set(accounts)
    for host in market.hosts.values():
        if host.alive:
            await check_unpaid(market, host)
    await check_shares(market, sum(account.redeemed for account in accounts.values()))


async def check_unpaid(market: Market, host: Host) -> None:
    """What the host sent and nobody received is all that it is not paid for, and within its offer's credit."""
    paid = {(ended.job, part.attempt): part.amount for ended in market.ended for part in ended.parts}
    bound = 0
    for row in await host.ledger.attempts(10_000):
        gap = row.amount - paid.get((row.job, row.attempt), 0)
        made = host.made[f"{row.job.hex()}:{row.attempt}"]
        bound += max(0, min(gap, attempt_amount(host.price, made.prompt, made.first, CREDIT)))
    left = sum(outstanding(channel) for channel in host.node.channels.all())
    assert left <= bound, f"{host.name} worked for {left} wei that nobody pays; only {bound} wei can have got lost"


async def check_shares(market: Market, redeemed: int) -> None:
    """The host's and the parties' shares of all that was ever redeemed; then everybody takes theirs out."""
    coin, settlement = market.contracts.coin, market.contracts.settlement
    whole = sum(party.bps for party in PARTIES)
    pool = redeemed * whole // 10_000
    assert await settlement.gross(market.terms) == redeemed
    assert await settlement.earned(market.terms) == pool
    parties = [party.payee for party in PARTIES]
    for k in range(len(parties)):
        if await settlement.claimable(AGENT, PARTIES, k):
            await settlement.claim(SUPPLY_HOLDER, AGENT, PARTIES, k)
    # The first party's share is rounded up, the others' down; at most one wei a party stays in the pool (S5).
    shares = [-(-pool * PARTIES[0].bps // whole), *(pool * party.bps // whole for party in PARTIES[1:])]
    assert [await coin.balance(payee) for payee in parties] == shares
    assert 0 <= pool - sum(shares) <= len(PARTIES) - 2
    for host in market.hosts.values():
        if await settlement.host_balance(host.address):
            await settlement.withdraw(SUPPLY_HOLDER, host.address)
    assert sum([await coin.balance(host.address) for host in market.hosts.values()]) == redeemed - pool
    await _check_coins(market)
