"""Who consents to a split table, and by what; what its ancestors are owed. Pure; decides as AgentRegistry.sol does.

A table stands only if every party consented: by being the owner who agrees it, as the owner of an ancestor that gets
what it asks, by a standing policy, or by a signature.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum

import msgspec

from lading_contracts.registry import MAX_LINEAGE_BPS, WHOLE_BPS, Agent, Consents, Party, Role
from lading_protocol.ids import Address, short

Policies = Mapping[tuple[Address, Role], int]


class Basis(StrEnum):
    """By what a party consents, in words."""

    OWNER = "the owner, who agrees the table"
    LINEAGE = "owner of an ancestor, and gets what it asks"
    SIGNED = "its signature"
    POLICY = "its standing policy"
    MISSING = "did not consent"


class Short(msgspec.Struct, frozen=True):
    """The owner of ancestors gets less than they ask together (basis points)."""

    owner: Address
    asked: int
    offered: int


def owed(ancestors: Sequence[Agent]) -> dict[Address, int]:
    """What each owner of ancestors must get (basis points). They count from the nearest, up to half of the revenue."""
    left, sums = MAX_LINEAGE_BPS, dict[Address, int]()
    for one in ancestors:
        asked = min(one.royalty_bps, left)
        if asked:
            left -= asked
            sums[one.owner] = sums.get(one.owner, 0) + asked
    return sums


def shortfall(table: Sequence[Party], asked: Mapping[Address, int]) -> Short | None:
    """The first owner of an ancestor to whom the table gives too little."""
    for owner, wanted in asked.items():
        offered = sum(party.bps for party in table if party.payee == owner)
        if offered < wanted:
            return Short(owner, wanted, offered)
    return None


def bases(
    table: Sequence[Party], owner: Address, asked: Mapping[Address, int], policies: Policies, consents: Consents
) -> tuple[Basis, ...]:
    """One for each party, in the table's order. Signatures are taken as good: whoever reads them checks them."""

    def of(party: Party) -> Basis:
        if party.payee == owner:
            return Basis.OWNER
        if party.payee in asked:
            return Basis.LINEAGE
        least = policies.get((party.payee, party.role), 0)
        if least and party.bps >= least:
            return Basis.POLICY
        return Basis.SIGNED if party.payee in consents.signatures else Basis.MISSING

    return tuple(map(of, table))


def default_deadline(now: float) -> int:
    """The first second of the month after the next (UTC): whoever signs in the same month signs for the same second."""
    today = datetime.fromtimestamp(now, UTC)
    months = today.year * 12 + today.month - 1 + 2
    return int(datetime(months // 12, months % 12 + 1, 1, tzinfo=UTC).timestamp())


def share_words(bps: int) -> str:
    return f"{bps / 100:g} %"


def table_words(table: Sequence[Party]) -> str:
    """A split table in one line, the host's part last."""
    lines = [f"{party.role.name.lower()} {short(party.payee)} {share_words(party.bps)}" for party in table]
    rest = WHOLE_BPS - sum(party.bps for party in table)
    return ", ".join([*lines, f"host {share_words(rest)}"])
