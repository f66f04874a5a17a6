"""`lading agent terms`, `sunset` and `supersede`: which tables an agent has, their end, and its next version."""

import time
from dataclasses import asdict
from typing import Annotated, Any

from cyclopts import Parameter

from lading.cli import context, history
from lading.cli.auctions import typed_agent
from lading.cli.context import Desk
from lading.cli.flags import Asking, Signing, Switch
from lading.cli.history import Table
from lading.cli.intent import Intent
from lading.cli.output import emit, emit_rows
from lading.core.consents import Basis, owed, share_words, table_words
from lading.errors import BadSettings
from lading.release import Release, consent_bases
from lading_contracts import events
from lading_contracts.deployment import Contracts
from lading_contracts.registry import Agent, Terms
from lading_protocol.ids import ZERO_ADDRESS, Address, TermsId, digest, to_hex

# Time for the transaction itself, on top of the notice that the registry wants.
MARGIN = 600


async def terms(id: str | None = None, /, *, agent: str | None = None, how: Asking = Asking()) -> int:
    """Show split tables: who gets what, by what each party consents, and whether they are open.

    Parameters
    ----------
    id
        One table, by its 0x id.
    agent
        All tables of this agent, by its 0x digest.
    """
    if (id is None) == (agent is None):
        raise BadSettings("Which table?", hint="Name its id, or --agent to see all of an agent.")
    wanted = None if id is None else _typed_terms(id)
    of = None if agent is None else typed_agent(agent)
    async with context.contracts(context.settings(**asdict(how))) as (chain, _):
        tables, auctioned = await _past(chain)
        chosen = [one for one in tables if one.terms == wanted or one.agent == of]
        if not chosen:
            raise BadSettings("There are no such terms on this chain.", hint="Check the id and the deployment record.")
        shown = [await _shown(chain, one, auctioned.get(one.terms, ()), how.as_json) for one in chosen]
        if how.as_json:
            emit_rows(shown, True, "")
            return 0
        for one in shown:
            parties = one.pop("parties")
            emit(one, False)
            emit_rows(parties, False, "")
    return 0


async def sunset(
    agent: str,
    /,
    *,
    terms: Annotated[str | None, Parameter(help="Only this table of the agent, by its 0x id.")] = None,
    at: str | None = None,
    cancel: Switch = False,
    how: Signing = Signing(),
) -> int:
    """Announce the end of your agent, or of one of its tables. What is locked by then stays redeemable.

    Parameters
    ----------
    agent
        The agent's 0x digest.
    at
        The day (YYYY-MM-DD, UTC); the earliest that the notice allows when left out.
    cancel
        Call it off instead.
    """
    which = typed_agent(agent)
    table = None if terms is None else _typed_terms(terms)
    async with context.desk(how) as desk:
        registry = desk.chain.registry
        moment = 0 if cancel else await _moment(desk, at)
        when = context.moment(moment)
        intent = Intent(desk.chain, desk.me)
        if table is None:
            ends = f"From {when} on agent {agent} gets no new terms and no descendants."
            words = f"Call off the end of agent {agent}." if cancel else ends
            intent.will(words, lambda c: c.registry.sunset_agent(desk.me, which, moment))
        else:
            ends = f"From {when} on nothing is locked under the terms {terms} of agent {agent}."
            words = f"Call off the end of the terms {terms}." if cancel else ends
            intent.will(words, lambda c: c.registry.sunset_terms(desk.me, table, which, moment))
        if await intent.carry_out(how):
            found: Agent | Terms | None = await (registry.agent(which) if table is None else registry.terms(table))
            seen = 0 if found is None else found.sunset_at
            emit({"agent": agent, "terms": terms, "sunset": context.moment(seen, how.as_json) or "none"}, how.as_json)
    return 0


async def supersede(agent: str, successor: str, /, *, how: Signing = Signing()) -> int:
    """Name the next version of your agent, another agent of yours. May be corrected.

    Parameters
    ----------
    agent
        The older agent's 0x digest.
    successor
        The newer one's.
    """
    older, newer = typed_agent(agent), typed_agent(successor)
    async with context.desk(how) as desk:
        intent = Intent(desk.chain, desk.me)
        words = f"Name agent {successor} the next version of your agent {agent}."
        intent.will(words, lambda c: c.registry.supersede(desk.me, older, newer))
        if await intent.carry_out(how):
            found = await desk.chain.registry.agent(older)
            seen = None if found is None else to_hex(found.successor)
            emit({"agent": agent, "successor": seen}, how.as_json)
    return 0


# --- inside ---


async def _past(chain: Contracts) -> tuple[list[Table], dict[TermsId, tuple[Address, ...]]]:
    """Every table, oldest first, and the winners of those that an auction made."""
    tables: list[Table] = []
    auctioned: dict[TermsId, tuple[Address, ...]] = {}
    sources = chain.deployment.registry, chain.deployment.share_auctions
    async for event in history.past(chain, sources):
        match event:
            case events.TermsAgreed(id=id_, agent=of, parties=parties):
                tables.append(Table(id_, of, parties))
            case events.AuctionSettled(terms=made, winners=winners):
                auctioned[made] = winners
            case _:
                pass
    return tables, auctioned


async def _shown(chain: Contracts, table: Table, winners: tuple[Address, ...], as_json: bool) -> dict[str, Any]:
    registry = chain.registry
    known, held = await registry.terms(table.terms), await registry.agent(table.agent)
    owner = ZERO_ADDRESS if held is None else held.owner
    asked = owed(await registry.ancestors(table.agent))
    found = await consent_bases(chain, owner, Release(table.agent, table.parties), asked)
    rows = [
        {
            "role": party.role.name.lower(),
            "payee": to_hex(party.payee),
            "share": party.bps if as_json else share_words(party.bps),
            "consents by": _basis(basis, won=party.payee in winners),
        }
        for party, basis in zip(table.parties, found, strict=True)
    ]
    sunset_at = 0 if known is None else known.sunset_at
    is_open = known is not None and known.is_open(time.time())
    return {
        "terms": to_hex(table.terms),
        "agent": to_hex(table.agent),
        "table": table_words(table.parties),
        "open": is_open if as_json else ("yes" if is_open else "no: nothing can be locked under them any more"),
        "sunset": context.moment(sunset_at, as_json) or (0 if as_json else "none announced"),
        "parties": rows,
    }


def _basis(basis: Basis, *, won: bool) -> str:
    if won and basis is Basis.MISSING:
        return "its bid, which won"
    # Nothing is kept of a signature but the table that it made possible.
    return "its signature, or a policy that it had then" if basis is Basis.MISSING else basis.value


async def _moment(desk: Desk, at: str | None) -> int:
    notice = await desk.chain.registry.notice()
    earliest = int(time.time()) + notice
    if at is None:
        return earliest + MARGIN
    moment = context.typed_day(at)
    if moment < earliest:
        raise BadSettings(
            f"A sunset needs {notice // 86_400} days of notice.", hint=f"Name {context.moment(earliest)} or later."
        )
    return moment


def _typed_terms(text: str) -> TermsId:
    try:
        return TermsId(digest(text))
    except ValueError as error:
        raise BadSettings(f"The terms are no id: {error}.", hint="Write 0x and 64 hexadecimal digits.") from None
