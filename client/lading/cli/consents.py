"""`lading agent consent` and `lading agent policy`: a party agrees to split tables, once or standing."""

import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from lading import keyfile, publisher
from lading.blobs import BlobStore
from lading.cli import context
from lading.cli.auctions import typed_share
from lading.cli.flags import Signing
from lading.cli.intent import Intent
from lading.cli.output import emit, out, plain
from lading.cli.tables import typed_party
from lading.core.consents import default_deadline, share_words, table_words
from lading.errors import BadSettings
from lading_contracts import deployment as deployments
from lading_contracts.registry import Party, Role, terms_id
from lading_protocol.ids import Address, AgentId, digest, to_hex
from lading_protocol.receipts import TermsConsent

Parties = Annotated[list[str] | None, Parameter(help="ROLE=ADDRESS:BPS; replaces the project's table (repeatable).")]


def consent(
    agent: str,
    /,
    *,
    party: Parties = None,
    publisher: str | None = None,
    parent: str | None = None,
    until: str | None = None,
    how: Signing = Signing(),
) -> int:
    """Sign that you stand in an agent's split table, for its publisher to put on chain. Nothing is sent.

    Parameters
    ----------
    agent
        The agent's 0x digest, with the table as --party lines; or the project folder, with --publisher.
    publisher
        The publisher's 0x address, from which the agent's digest follows.
    parent
        The agent's digest that a project derives from.
    until
        The day (YYYY-MM-DD, UTC) before which the table must be on chain, the same for all parties. Default: the month
        after the next begins.
    """
    chosen = context.settings(**asdict(how))
    mine = keyfile.load_key(chosen.key_path)
    record = deployments.load(chosen.deployment_path)
    who, table = _table(agent, party, publisher, parent)
    lines = [one for one in table if one.payee == mine.address]
    if not lines:
        raise BadSettings(
            f"Your key {to_hex(mine.address)} is no party of this table: {table_words(table)}.",
            hint="Sign with the key that is, or ask for another table.",
        )
    deadline = default_deadline(time.time()) if until is None else context.typed_day(until)
    yours = " and ".join(f"{share_words(one.bps)} as {one.role.name.lower()}" for one in lines)
    words = (
        f"Consent to the table of agent {to_hex(who)}: {table_words(table)}. You get {yours}. "
        f"It must be on chain before {context.moment(deadline)}; what is agreed then cannot be taken back."
    )
    shown: dict[str, Any] = {"signs": words, "terms": to_hex(terms_id(who, table)), "deadline": deadline}
    if not how.as_json:
        out.print(plain(words), markup=False, soft_wrap=True)
    if how.dry_run:
        emit({"dry_run": True} | shown, how.as_json)
        return 0
    paper = TermsConsent(terms_id(who, table), deadline).sign(record.registry_domain, mine)
    emit({"consent": to_hex(paper.pack()), "party": to_hex(mine.address)} | (shown if how.as_json else {}), how.as_json)
    return 0


async def policy(role: str, share: str, /, *, how: Signing = Signing()) -> int:
    """Consent on chain to every table that gives you at least so much in a role, until you change it.

    Parameters
    ----------
    role
        maker, oem, weaver or curator.
    share
        The least that you accept, such as 3% or 300; 0 ends the consent.
    """
    which, bps = _role(role), _share(share)
    async with context.desk(how) as desk:
        words = (
            f"Consent to any table of any agent that gives you at least {share_words(bps)} as {role}."
            if bps
            else f"Consent no longer to tables that name you as {role}; tables that were agreed stay."
        )
        intent = Intent(desk.chain, desk.me)
        intent.will(words, lambda c: c.registry.set_policy(desk.me, which, bps))
        if await intent.carry_out(how):
            held = await desk.chain.registry.policy_of(desk.me.address, which)
            shown = held if how.as_json else (f"at least {share_words(held)}" if held else "none")
            emit({"party": to_hex(desk.me.address), "role": role, "policy": shown}, how.as_json)
    return 0


def typed_parent(text: str | None) -> AgentId | None:
    """Raises BadSettings."""
    try:
        return AgentId(digest(text)) if text else None
    except ValueError as error:
        raise BadSettings(f"The parent is no agent's digest: {error}.", hint="Write 0x and 64 digits.") from None


# --- inside ---


def _table(
    agent: str, party: list[str] | None, by: str | None, parent: str | None
) -> tuple[AgentId, tuple[Party, ...]]:
    """Which agent and which table: by digest and lines, or from a project folder."""
    if Path(agent).is_dir():
        return _project(Path(agent), party, by, parent)
    try:
        which = AgentId(digest(agent))
    except ValueError as error:
        raise BadSettings(
            f"{agent!r} is neither a project folder nor an agent's digest: {error}.", hint="Write 0x and 64 digits."
        ) from None
    if not party:
        raise BadSettings("A digest alone does not say the table.", hint="Give every line: --party maker=0x…:1500.")
    return which, tuple(map(typed_party, party))


def _project(
    folder: Path, party: list[str] | None, by: str | None, parent: str | None
) -> tuple[AgentId, tuple[Party, ...]]:
    if by is None:
        raise BadSettings("A project's digest follows from its publisher.", hint="Name the address: --publisher 0x….")
    owner: Address = context.typed_address(by, "publisher")
    project = publisher.load_project(folder)
    base = typed_parent(parent or project.agent.parent)
    table = tuple(map(typed_party, party)) if party else publisher.parties(project, owner)
    with tempfile.TemporaryDirectory() as scratch:
        which, _ = publisher.pack(project, folder, owner, BlobStore(Path(scratch)), publisher.More(table, base))
    return which, table


def _role(text: str) -> Role:
    try:
        return Role[text.upper()]
    except KeyError:
        names = ", ".join(role.name.lower() for role in Role)
        raise BadSettings(f"There is no role {text!r}.", hint=f"One of {names}.") from None


def _share(text: str) -> int:
    if text.rstrip("%bps") == "0":
        return 0
    return typed_share(f"{text}bps" if text.isdecimal() else text)
