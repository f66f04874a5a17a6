"""Puts an agent and a split table on the chain: what must hold before anything is sent, and the two transactions.

Everything that the registry would refuse is refused here first, in words, while it costs nothing.
"""

import asyncio
from collections.abc import Sequence

import msgspec

from lading.core.consents import Basis, bases, owed, share_words, shortfall, table_words
from lading.errors import PublishRefused
from lading_contracts import abi
from lading_contracts.deployment import Contracts
from lading_contracts.errors import BadAbi, Reverted
from lading_contracts.port import Signer
from lading_contracts.registry import WHOLE_BPS, Agent, Consents, Party, terms_id
from lading_protocol.errors import BadSignature
from lading_protocol.ids import ZERO_DIGEST, Address, AgentId, TermsId, to_hex
from lading_protocol.keys import recover
from lading_protocol.receipts import TermsConsent, expand

_ERC1271 = bytes.fromhex("1626ba7e")


class Release(msgspec.Struct, frozen=True):
    """An agent as its publisher wants it on the chain, with one split table and the consents to it."""

    agent: AgentId
    table: tuple[Party, ...]
    parent: AgentId | None = None
    royalty_bps: int = 0
    consents: Consents = Consents()

    @property
    def terms(self) -> TermsId:
        return terms_id(self.agent, self.table)


class Survey(msgspec.Struct, frozen=True):
    """What is on the chain already, and by what each party of the table consents."""

    registered: bool
    agreed: bool
    bases: tuple[Basis, ...]


async def survey(contracts: Contracts, publisher: Address, release: Release, now: float) -> Survey:
    """Raises PublishRefused when the registry would not take it, naming what to do; ChainError."""
    registry = contracts.registry
    held = await registry.agent(release.agent)
    _check_owner(held, publisher, release.agent, now)
    known = await registry.terms(release.terms)
    if known is not None and not known.is_open(now):
        raise PublishRefused(
            "This very table was agreed for the agent before and has sunset.",
            hint="Agree another table: change a share.",
        )
    _check_sum(release.table)
    asked = owed(await _ancestors(contracts, release, held, now))
    if short_of := shortfall(release.table, asked):
        raise PublishRefused(
            f"The owner {to_hex(short_of.owner)} of an ancestor asks {share_words(short_of.asked)} and the table gives "
            f"it {share_words(short_of.offered)}.",
            hint=f"Add it: --party maker={to_hex(short_of.owner)}:{short_of.asked}, or as a [[party]].",
        )
    found = await consent_bases(contracts, publisher, release, asked)
    if known is None:
        await _check_consents(contracts, release, found, now)
    return Survey(held is not None, known is not None, found)


async def consent_bases(
    contracts: Contracts, owner: Address, release: Release, asked: dict[Address, int]
) -> tuple[Basis, ...]:
    """By what each party consents now. Raises ChainError."""
    table = release.table
    least = await asyncio.gather(*(contracts.registry.policy_of(party.payee, party.role) for party in table))
    policies = {(party.payee, party.role): bps for party, bps in zip(table, least, strict=True)}
    return bases(table, owner, asked, policies, release.consents)


async def register(contracts: Contracts, publisher: Signer, release: Release) -> None:
    """Put the agent on the chain, once. Raises ChainError."""
    await contracts.registry.register(publisher, release.agent, release.parent or ZERO_DIGEST, release.royalty_bps)


async def agree(contracts: Contracts, publisher: Signer, release: Release) -> TermsId:
    """Put its table on the chain; safe to repeat. Raises ChainError."""
    return await contracts.registry.agree_terms(publisher, release.agent, release.table, release.consents)


async def publish(contracts: Contracts, publisher: Signer, release: Release, now: float) -> TermsId:
    """Both, each once; safe to repeat. Raises PublishRefused before anything is sent, ChainError."""
    found = await survey(contracts, publisher.address, release, now)
    if not found.registered:
        await register(contracts, publisher, release)
    if not found.agreed:
        await agree(contracts, publisher, release)
    return release.terms


def registration_words(release: Release) -> str:
    """What the first transaction does."""
    under = f" under its parent {to_hex(release.parent)}" if release.parent else ""
    asks = f", asking {share_words(release.royalty_bps)} of whatever derives from it" if release.royalty_bps else ""
    return f"Register agent {to_hex(release.agent)} as yours{under}{asks}."


def agreement_words(release: Release) -> str:
    """What the second transaction does."""
    return f"Agree its table: {table_words(release.table)}."


def consent_command(release: Release) -> str:
    """What a party runs to consent to the table."""
    lines = (f"--party {one.role.name.lower()}={to_hex(one.payee)}:{one.bps}" for one in release.table)
    return f"lading agent consent {to_hex(release.agent)} {' '.join(lines)}"


# --- inside ---


def _check_owner(held: Agent | None, publisher: Address, agent: AgentId, now: float) -> None:
    if held is None:
        return
    if held.owner != publisher:
        raise PublishRefused(f"Agent {to_hex(agent)} belongs to {to_hex(held.owner)} already.")
    if held.sunset_at and held.sunset_at <= now:
        raise PublishRefused(
            f"Agent {to_hex(agent)} has sunset: it gets no new terms.", hint="Publish the next version as a new agent."
        )


def _check_sum(table: Sequence[Party]) -> None:
    total = sum(party.bps for party in table)
    if total >= WHOLE_BPS:
        raise PublishRefused(
            f"The parties get {share_words(total)} together, which leaves nothing to the host.",
            hint="Lower the shares.",
        )


async def _ancestors(contracts: Contracts, release: Release, held: Agent | None, now: float) -> tuple[Agent, ...]:
    """From the nearest up, those of an agent that is not registered yet too."""
    if held is not None:
        return await contracts.registry.ancestors(release.agent)
    if release.parent is None:
        return ()
    above = await contracts.registry.agent(release.parent)
    if above is None:
        raise PublishRefused(
            f"The parent {to_hex(release.parent)} is not registered on this chain.",
            hint="Check its digest and the chain.",
        )
    if above.sunset_at and above.sunset_at <= now:
        raise PublishRefused(
            f"The parent {to_hex(release.parent)} has sunset: it gets no descendants any more.",
            hint="Derive from its successor.",
        )
    return (above, *await contracts.registry.ancestors(release.parent))


async def _check_consents(contracts: Contracts, release: Release, found: Sequence[Basis], now: float) -> None:
    for party, basis in zip(release.table, found, strict=True):
        who = f"{party.role.name.lower()} {to_hex(party.payee)}, who gets {share_words(party.bps)},"
        if basis is Basis.MISSING:
            raise PublishRefused(
                f"The {who} did not consent to this table.",
                hint=f"Have it run: {consent_command(release)}, and give what that prints as --consent; or have it "
                f"consent to all such tables: lading agent policy {party.role.name.lower()} {party.bps}.",
            )
        if basis is not Basis.SIGNED:
            continue
        if release.consents.deadline <= now:
            raise PublishRefused(
                f"The consent of the {who} has expired.", hint="Have it sign again: lading agent consent."
            )
        await _check_signature(contracts, release, party)


async def _check_signature(contracts: Contracts, release: Release, party: Party) -> None:
    signature = release.consents.signatures[party.payee]
    paper = TermsConsent(release.terms, release.consents.deadline)
    digest = paper.digest(contracts.deployment.registry_domain)
    try:
        whole = expand(signature) if len(signature) == 64 else signature
        if recover(digest, whole) == party.payee:
            return
    except BadSignature:
        pass  # then it is a contract's, in whatever form that accepts, or nobody's
    if not await _accepts(contracts, party.payee, digest, signature):
        raise PublishRefused(
            f"The consent given for {to_hex(party.payee)} is not signed by it, or for another table or deadline.",
            hint="Have it sign again: lading agent consent.",
        )


async def _accepts(contracts: Contracts, wallet: Address, digest: bytes, signature: bytes) -> bool:
    """Whether a contract takes the signature for its own (ERC-1271)."""
    if not await contracts.chain.code(wallet):
        return False
    try:
        call = _ERC1271 + abi.encode(("bytes32", "bytes"), (digest, signature))
        (answer,) = abi.decode(("bytes4",), await contracts.chain.call(wallet, call))
    except (Reverted, BadAbi):
        return False
    return bool(answer == _ERC1271)
