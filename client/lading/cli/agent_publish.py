"""`lading agent publish`, `update`, `yank`: a package onto the chain and to coordinators, its next release, its end."""

import importlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter

from lading import keyfile, publisher
from lading.blobs import BlobStore
from lading.cli import context
from lading.cli.auctions import typed_agent
from lading.cli.consents import Parties, typed_parent
from lading.cli.coordinators import endpoints, linked
from lading.cli.flags import Asking, BaseUrl, Signing
from lading.cli.intent import Intent
from lading.cli.output import emit, err, transfer
from lading.cli.tables import typed_consents, typed_party
from lading.errors import BadSettings, PublishRefused
from lading.project import Project
from lading.publisher import More
from lading.release import Release, agree, agreement_words, register, registration_words, survey
from lading.settings import Settings
from lading_contracts.deployment import Contracts, Deployment
from lading_protocol.errors import BadManifest
from lading_protocol.ids import AgentId, digest, to_hex
from lading_protocol.keys import PrivateKey
from lading_protocol.manifest import Manifest
from lading_protocol.messages import Move, Withdraw
from lading_protocol.release import PackageSignature, Yank, lineage, point_to
from lading_protocol.transcript import sha256

# Named, not imported: the client runs without the node's parts, and then its packages are published untried.
_TRIAL = "lading_node.trial"

Consent = Annotated[list[str] | None, Parameter(help="What `lading agent consent` printed for a party (repeatable).")]
To = Annotated[
    list[str] | None,
    Parameter(help="Direct-link endpoint of a coordinator (repeatable); found through --base-url else."),
]
NoTest = Annotated[
    bool, Parameter(name="--no-test", negative="", show_default=False, help="Do not run the test vectors first.")
]


@Parameter(name="*")
@dataclass(frozen=True)
class Publication(Signing):
    """How a release goes out: the flags of `publish` and `update`."""

    party: Parties = None
    consent: Consent = None
    to: To = None
    no_test: NoTest = False
    base_url: BaseUrl = None


class Packed(msgspec.Struct, frozen=True):
    """A package in the publisher's store."""

    agent: AgentId
    manifest: Manifest
    project: Project


class Desk(msgspec.Struct, frozen=True):
    """What the commands of this file work with: who publishes, from which store, to which coordinators."""

    chosen: Settings
    mine: PrivateKey
    store: BlobStore
    to: tuple[str, ...]

    def pack(self, folder: Path, more: More) -> Packed:
        project = publisher.load_project(folder)
        with transfer(f"packing {project.agent.name}") as progress:
            task = progress.tasks[0].id
            heard = msgspec.structs.replace(
                more, progress=lambda done, total: progress.update(task, completed=done, total=total)
            )
            return Packed(*publisher.pack(project, folder, self.mine.address, self.store, heard), project)


async def publish(
    folder: Path,
    /,
    *,
    parent: str | None = None,
    how: Publication = Publication(),
) -> int:
    """Register an agent and its revenue terms on chain, hand the package to a coordinator, and make it the current one.

    The key pays for the registration and owns the agent. Every party of the table must consent: see `lading agent
    consent` and `lading agent policy`.

    Parameters
    ----------
    folder
        The project folder, with its agent.toml.
    parent
        The agent's digest that this one derives from.
    """
    chosen = context.on(how, base_url=how.base_url)
    mine = keyfile.load_key(chosen.key_path)
    project = publisher.load_project(folder)
    desk = await _desk(chosen, mine, how.to, how.dry_run)
    table = tuple(map(typed_party, how.party)) if how.party else publisher.parties(project, desk.mine.address)
    base = typed_parent(parent or project.agent.parent)
    made = desk.pack(folder, More(table, base))
    if not how.no_test:
        await _try(desk, made, how.as_json)
    async with context.contracts(chosen) as (chain, record):
        given = typed_consents(record, made.agent, table, how.consent or [])
        release = Release(made.agent, table, base, project.royalty_bps, given)
        intent = await _intent(chain, desk.mine, release)
        if (intent.words or how.dry_run) and not await intent.carry_out(how):
            return 0
        told = await _hand_over(desk, record, made, release)
    emit(told, how.as_json)
    return 0


async def update(
    folder: Path,
    /,
    *,
    replaces: str | None = None,
    how: Publication = Publication(),
) -> int:
    """Publish the next release of an agent, name it the successor on chain, and have hosts follow.

    Hosts fetch it, serve it at their price, and let go of the old one when its running jobs have ended. Run again after
    an interruption, it goes on; with nothing changed, it only makes the present release current for longer.

    Parameters
    ----------
    folder
        The project folder, with its agent.toml.
    replaces
        The digest of the release before; what the coordinator says is current when left out.
    """
    chosen = context.on(how, base_url=how.base_url)
    mine = keyfile.load_key(chosen.key_path)
    project = publisher.load_project(folder)
    desk = await _desk(chosen, mine, how.to, False)
    table = tuple(map(typed_party, how.party)) if how.party else publisher.parties(project, desk.mine.address)
    base = typed_parent(project.agent.parent)
    async with context.contracts(chosen) as (chain, record):
        before = typed_agent(replaces) if replaces else await _current(desk, record, project.agent.name)
        made = _next(desk, folder, More(table, base), before)
        if not how.no_test:
            await _try(desk, made, how.as_json)
        given = typed_consents(record, made.agent, table, how.consent or [])
        release = Release(made.agent, table, base, project.royalty_bps, given)
        intent = await _intent(chain, desk.mine, release)
        if made.agent != before:
            await _succeed(chain, intent, desk.mine, before, made.agent)
        if (intent.words or how.dry_run) and not await intent.carry_out(how):
            return 0
        told = await _hand_over(desk, record, made, release)
    emit(told | {"replaces": to_hex(before) if made.agent != before else "nothing: it is the current one"}, how.as_json)
    return 0


async def yank(
    agent: str,
    /,
    *,
    reason: str,
    to: To = None,
    base_url: BaseUrl = None,
    how: Asking = Asking(),
) -> int:
    """Take a release back for good: coordinators list it no more, and hosts stop offering it at once.

    Parameters
    ----------
    agent
        The release's 0x digest.
    reason
        One line for those who used it.
    """
    which = typed_agent(agent)
    if not reason.strip() or not reason.isprintable() or len(reason) > 2000:
        raise BadSettings("The reason must be one line of at most 2,000 characters.", hint="Say it in a sentence.")
    chosen = context.on(how, base_url=base_url)
    desk = await _desk(chosen, keyfile.load_key(chosen.key_path), to, False)
    async with context.contracts(desk.chosen) as (_, record):
        paper = Yank(which, int(time.time() * 1000), sha256(reason.encode()))
        signed = paper.sign(record.registry_domain, desk.mine).pack()
    for endpoint in desk.to:
        async with linked(desk.mine, endpoint, desk.store, network_key=desk.chosen.network_key) as link:
            await publisher.announce(link, Withdraw(signed, reason))
    emit({"yanked": to_hex(which), "reason": reason, "told": ", ".join(desk.to)}, how.as_json)
    return 0


# --- inside ---


async def _desk(chosen: Settings, mine: PrivateKey, to: Sequence[str] | None, offline: bool) -> Desk:
    places = () if offline and not to else await endpoints(chosen, to)
    return Desk(chosen, mine, own_store(chosen), places)


def own_store(chosen: Settings) -> BlobStore:
    """The publisher's packages: never thrown out to make room."""
    return BlobStore(chosen.home_path / "packages", evict=False)


def signature_path(chosen: Settings, agent: AgentId) -> Path:
    """Where the publisher's own signature of a package is kept, for exports."""
    return chosen.home_path / "signatures" / agent.hex()


async def _intent(chain: Contracts, mine: PrivateKey, release: Release) -> Intent:
    """What is not on the chain yet. Raises PublishRefused before anything is signed."""
    found = await survey(chain, mine.address, release, time.time())
    intent = Intent(chain, mine)
    if not found.registered:
        intent.will(registration_words(release), lambda c: register(c, mine, release))
    if not found.agreed:
        intent.will(agreement_words(release), lambda c: agree(c, mine, release))
    return intent


async def _succeed(chain: Contracts, intent: Intent, mine: PrivateKey, before: AgentId, after: AgentId) -> None:
    held = await chain.registry.agent(before)
    if held is None or held.owner != mine.address:
        raise PublishRefused(f"The release before, {to_hex(before)}, is not yours on this chain.")
    if held.successor != after:
        words = f"Name agent {to_hex(after)} the next version of your agent {to_hex(before)}."
        intent.will(words, lambda c: c.registry.supersede(mine, before, after))


async def _current(desk: Desk, record: Deployment, name: str) -> AgentId:
    """The release that a coordinator has as the current one. Raises PublishRefused."""
    line, mine = lineage(desk.mine.address, name), desk.mine
    async with linked(mine, desk.to[0], desk.store, network_key=desk.chosen.network_key) as link:
        known = await publisher.current(link, line, record.registry_domain, mine.address, time.time())
    if known is None:
        raise PublishRefused(
            f"No release of {name!r} by your key is current at the coordinator.",
            hint="Publish the first one: lading agent publish. Or name the one before: --replaces.",
        )
    return AgentId(known.pointer.agent)


def _next(desk: Desk, folder: Path, more: More, before: AgentId) -> Packed:
    """The package as the successor of `before`; `before` itself when nothing has changed."""
    try:
        old = desk.store.manifest(before)
    except BadManifest:
        old = None  # published from another machine
    if old is not None:
        follows = None if old.supersedes is None else AgentId(digest(old.supersedes))
        same = desk.pack(folder, msgspec.structs.replace(more, supersedes=follows))
        files = tuple(file for file in old.files if file.role != "delta")  # how to get there, not what it is
        if same.manifest == msgspec.structs.replace(old, files=files):
            return Packed(before, old, same.project)
    return desk.pack(folder, msgspec.structs.replace(more, supersedes=before, deltas=True))


async def _try(desk: Desk, made: Packed, as_json: bool) -> None:
    """Run the test vectors as a host would. Raises PublishRefused when one fails."""
    if not made.manifest.vectors:
        return
    try:
        trial = importlib.import_module(_TRIAL)
    except ImportError as error:
        err.print(
            f"[dim]The test vectors are not run: {error.name} is not installed (lading\\[node]).[/]", soft_wrap=True
        )
        return
    findings = await trial.check(desk.store, made.agent)
    failed = [one for one in findings if one.trouble]
    if failed:
        raise PublishRefused(
            f"{len(failed)} of {len(findings)} test vectors fail; the first: {failed[0].trouble}",
            hint="See all: lading agent test. Publish all the same: --no-test.",
        )
    if not as_json:
        err.print(f"[dim]{len(findings)} test vectors hold.[/]")


async def _hand_over(desk: Desk, record: Deployment, made: Packed, release: Release) -> dict[str, Any]:
    """Package and pointer to every coordinator, one after the other."""
    mine, domain, manifest = desk.mine, record.registry_domain, made.manifest
    paper = PackageSignature(made.agent, mine.address).sign(domain, mine).pack()
    kept = signature_path(desk.chosen, made.agent)
    kept.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    kept.write_bytes(paper)
    pointer = point_to(lineage(mine.address, manifest.name), made.agent, time.time())
    signed = pointer.sign(domain, mine).pack()
    for endpoint in desk.to:
        with transfer(f"sending {manifest.name}") as progress:
            task = progress.tasks[0].id

            def sent(done: int, total: int, progress: Any = progress, task: Any = task) -> None:
                progress.update(task, completed=done, total=total)

            async with linked(mine, endpoint, desk.store, sent, desk.chosen.network_key) as link:
                await publisher.hand_over(link, made.agent, release.terms, paper)
                await publisher.announce(link, Move(signed))
    return {
        "agent": to_hex(made.agent),
        "terms": to_hex(release.terms),
        "name": f"{manifest.name} {manifest.version}",
        "bytes": manifest.size,
        "held_by": ", ".join(desk.to),
        "release": pointer.sequence,
    }
