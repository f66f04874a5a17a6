"""`lading earnings` and `lading settle`: what is due to you in every role, and taking it in few transactions."""

from collections.abc import Iterator
from typing import Any

import msgspec

from lading.cli import context, history
from lading.cli.context import Desk
from lading.cli.flags import Asking, Signing
from lading.cli.intent import Intent
from lading.cli.output import emit, emit_rows, out
from lading_contracts.registry import Role
from lading_protocol.ids import Address, short, to_hex

_SHARES_A_TRANSACTION = 40


class Share(msgspec.Struct, frozen=True):
    """One party of one table: what it got and what it may claim, in wei."""

    table: history.Table
    k: int
    claimed: int
    claimable: int

    @property
    def role(self) -> str:
        return Role(self.table.parties[self.k].role).name.lower()


class Due(msgspec.Struct, frozen=True):
    """`hosts` are those whose balance goes to the caller, with that balance."""

    shares: tuple[Share, ...]
    hosts: tuple[tuple[Address, int], ...]

    @property
    def claimable(self) -> tuple[Share, ...]:
        return tuple(share for share in self.shares if share.claimable)

    @property
    def total(self) -> int:
        return sum(share.claimable for share in self.shares) + sum(balance for _, balance in self.hosts)


async def earnings(*, how: Asking = Asking()) -> int:
    """Show what is due to you as host, maker, OEM, weaver or curator, and what you claimed before."""
    async with context.desk(how) as desk:
        found = await due(desk)
    rows = list(_rows(desk, found, how.as_json))
    emit_rows(rows, how.as_json, "No table names you, and no host's money goes to you.")
    if rows and not how.as_json:
        out.print(f"[dim]Due now: {desk.money(found.total)}. Take it: lading settle.[/]")
    return 0


async def settle(*, how: Signing = Signing()) -> int:
    """Claim every share and withdraw every host's balance that is due to you."""
    async with context.desk(how) as desk:
        found = await due(desk)
        intent = Intent(desk.chain, desk.me)
        shares = found.claimable
        for at in range(0, len(shares), _SHARES_A_TRANSACTION):
            _claim(intent, desk, shares[at : at + _SHARES_A_TRANSACTION])
        for host, balance in found.hosts:
            if balance:
                _withdraw(intent, desk, host, balance)
        if not intent.words:
            emit({"settled": desk.money(0, how.as_json), "transactions": 0}, how.as_json)
            return 0
        if await intent.carry_out(how):
            emit({"settled": desk.money(found.total, how.as_json), "transactions": len(intent.words)}, how.as_json)
    return 0


async def due(desk: Desk) -> Due:
    """Everything that the contracts owe the caller as host or party. Raises ChainError."""
    mine, settlement = desk.me.address, desk.chain.settlement
    past = await history.read(desk.chain, mine)
    shares = []
    for table in past.tables:
        for k, party in enumerate(table.parties):
            if party.payee == mine:
                claimed = await settlement.claimed(table.terms, k)
                claimable = await settlement.claimable(table.agent, table.parties, k)
                shares.append(Share(table, k, claimed, claimable))
    hosts = []
    for host in dict.fromkeys((*past.hosts, *past.payouts)):
        if await settlement.payout_of(host) in (mine, bytes(20) if host == mine else mine):
            hosts.append((host, await settlement.host_balance(host)))
    return Due(tuple(shares), tuple(hosts))


def _claim(intent: Intent, desk: Desk, shares: tuple[Share, ...]) -> None:
    total = sum(share.claimable for share in shares)
    names = ", ".join(f"{share.role} of {short(share.table.agent)}" for share in shares[:4])
    more = f" and {len(shares) - 4} more" if len(shares) > 4 else ""
    rows = [(share.table.agent, share.table.parties, share.k) for share in shares]
    words = f"Claim {desk.money(total)} as {names}{more}, into your wallet."
    intent.will(words, lambda c: c.settlement.claim_many(desk.me, desk.me.address, rows))


def _withdraw(intent: Intent, desk: Desk, host: Address, balance: int) -> None:
    words = f"Withdraw {desk.money(balance)} that host {to_hex(host)} earned, into your wallet."
    intent.will(words, lambda c: c.settlement.withdraw(desk.me, host))


def _rows(desk: Desk, found: Due, as_json: bool) -> Iterator[dict[str, Any]]:
    for host, balance in found.hosts:
        name = to_hex(host) if as_json else f"host {short(host)}"
        yield {"as": "host", "of": name, "share": "", "claimed": "", "due": desk.money(balance, as_json)}
    for share in found.shares:
        agent = share.table.agent
        yield {
            "as": share.role,
            "of": to_hex(agent) if as_json else f"agent {short(agent)}",
            "share": f"{share.table.parties[share.k].bps / 100:g} %",
            "claimed": desk.money(share.claimed, as_json),
            "due": desk.money(share.claimable, as_json),
        }
