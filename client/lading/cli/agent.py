"""`lading agent`: from a model folder to a published agent."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import httpx
import msgspec
from cyclopts import App, Parameter

from lading import publisher
from lading.blobs import BlobStore
from lading.cli import consents, context, lineage
from lading.cli.consents import Parties, typed_parent
from lading.cli.flags import BaseUrl, DryRun, Json, Network
from lading.cli.intent import Intent
from lading.cli.output import emit, out, plain, transfer
from lading.cli.tables import typed_consents, typed_party
from lading.errors import BadProject, GatewayError
from lading.release import Release, agree, agreement_words, register, registration_words, survey
from lading.routes.gateway import root_of, unreachable
from lading.settings import Settings
from lading_contracts.deployment import Contracts
from lading_protocol.errors import BadManifest
from lading_protocol.ids import address, to_hex
from lading_protocol.keys import PrivateKey
from lading_protocol.manifest import agent_id, load

app = App(name="agent", help="Publish agents, consent to their terms, and look into packages.")
for command in (consents.consent, consents.policy, lineage.terms, lineage.sunset, lineage.supersede):
    app.command(command)

EXAMPLE = """\
# An agent: what it is, how it runs, and who shares in what it earns.
[agent]
name = "{name}"
version = "1.0.0"
summary = "One line that says what it does."
licence = "Apache-2.0"
operations = ["chat"]          # "chat" or "embed"
context = 1024                 # tokens
royalty_bps = 500              # what agents derived from this one owe its owner, in hundredths of a percent

[[runtime]]
engine = "llm-onnx"            # "onnx" for embeddings
entry = "model.onnx"
precision = "f32"
numeric = "onnx-f32-cpu"       # the arithmetic that spot checks compare with

[runtime.llm]
layers = 4
heads = 4
kv_heads = 2
head_size = 32
hidden = 128
vocab = 1024
eos = [1]

[[file]]
path = "model.onnx"
role = "model"

[[file]]
path = "tokenizer.json"
role = "tokenizer"

[[file]]
path = "chat_template.jinja"
role = "chat_template"

[[party]]                      # the rest goes to the host that does the work
role = "maker"
bps = 1500
"""


@app.command
def init(folder: Path, /, *, as_json: Json = False) -> int:
    """Write an example agent.toml.

    Parameters
    ----------
    folder
        Where the model files are, or will be.
    """
    path = folder / "agent.toml"
    if path.exists():
        raise BadProject(f"{path} exists already.", hint="Edit it, then: lading agent publish.")
    folder.mkdir(parents=True, exist_ok=True)
    name = "".join(c if c.isalnum() else "-" for c in folder.resolve().name.lower()).strip("-") or "agent"
    path.write_text(EXAMPLE.format(name=name))
    emit({"wrote": str(path), "next": f"edit it, then: lading agent publish {folder}"}, as_json)
    return 0


@app.command
def inspect(path: Path, /, *, as_json: Json = False) -> int:
    """Show what a package holds: a project folder, or a manifest.

    Parameters
    ----------
    path
        A folder with an agent.toml, or a manifest file.
    """
    if path.is_dir():
        with tempfile.TemporaryDirectory() as scratch:
            project = publisher.load_project(path)
            agent, manifest = publisher.pack(project, path, address("0x" + "00" * 20), BlobStore(Path(scratch)))
    else:
        try:
            data = path.read_bytes()
        except OSError as error:
            raise BadManifest(f"{path} cannot be read ({error.strerror}).") from error
        manifest, agent = load(data), agent_id(data)
    if as_json:
        print(msgspec.json.encode({"agent": to_hex(agent), "manifest": manifest}).decode())
        return 0
    emit(
        {
            "agent": to_hex(agent) if not path.is_dir() else "follows from the publisher's key",
            "name": f"{manifest.name} {manifest.version}",
            "summary": manifest.summary,
            "operations": ", ".join(manifest.operations),
            "context": f"{manifest.context} tokens",
            "engines": ", ".join(f"{runtime.engine} ({runtime.precision})" for runtime in manifest.runtimes),
            "parent": manifest.parent or "none",
        },
        False,
    )
    for file in manifest.files:
        line = f"  {file.path:<32} {file.role:<14} {file.size:>12,} bytes  {file.digest[:14]}…"
        out.print(plain(line), markup=False, soft_wrap=True)
    return 0


@app.command
async def publish(
    folder: Path,
    /,
    *,
    party: Parties = None,
    consent: Annotated[
        list[str] | None, Parameter(negative="", help="What `lading agent consent` printed for a party (repeatable).")
    ] = None,
    parent: str | None = None,
    to: str | None = None,
    base_url: BaseUrl = None,
    network: Network = Network(),
    dry_run: DryRun = False,
    as_json: Json = False,
) -> int:
    """Register an agent and its revenue terms on chain, and hand the package to a coordinator.

    The key pays for the registration and owns the agent. Every party of the table must consent: see `lading agent
    consent` and `lading agent policy`.

    Parameters
    ----------
    folder
        The project folder, with its agent.toml.
    parent
        The agent's digest that this one derives from.
    to
        Direct-link endpoint of the coordinator; found through --base-url when left out.
    """
    chosen = context.settings(**asdict(network), base_url=base_url)
    mine = context.load_key(chosen.key_path)
    project = publisher.load_project(folder)
    table = tuple(map(typed_party, party)) if party else publisher.parties(project, mine.address)
    base = typed_parent(parent or project.agent.parent)
    endpoint = to or ("" if dry_run else await _endpoint(chosen))
    store = BlobStore(chosen.home_path / "packages")
    agent, manifest = publisher.pack(project, folder, mine.address, store, base)
    async with context.contracts(chosen) as (chain, record):
        given = typed_consents(record, agent, table, consent or [])
        release = Release(agent, table, base, project.agent.royalty_bps, given)
        intent = await _intent(chain, mine, release)
        if (intent.words or dry_run) and not await intent.carry_out(dry_run, as_json):
            return 0
    with transfer(f"publishing {manifest.name}") as progress:
        task = progress.tasks[0].id
        await _hand_over(
            mine,
            endpoint,
            store,
            release,
            lambda done, total: progress.update(task, completed=done, total=total),
        )
    emit(
        {
            "agent": to_hex(agent),
            "terms": to_hex(release.terms),
            "name": f"{manifest.name} {manifest.version}",
            "bytes": manifest.size,
            "held_by": endpoint,
        },
        as_json,
    )
    return 0


async def _intent(chain: Contracts, mine: PrivateKey, release: Release) -> Intent:
    """What is not on the chain yet. Raises PublishRefused before anything is signed."""
    found = await survey(chain, mine.address, release, time.time())
    intent = Intent(chain, mine)
    if not found.registered:
        intent.will(registration_words(release), lambda c: register(c, mine, release))
    if not found.agreed:
        intent.will(agreement_words(release), lambda c: agree(c, mine, release))
    return intent


async def _hand_over(
    mine: PrivateKey,
    endpoint: str,
    store: BlobStore,
    release: Release,
    progress: Callable[[int, int], None],
) -> None:
    from lading_net.direct import DirectTransport

    transport = DirectTransport(mine)
    try:
        await publisher.hand_over(transport, endpoint, store, release.agent, release.terms, progress)
    finally:
        await transport.close()


async def _endpoint(chosen: Settings) -> str:
    root = root_of(chosen.base_url)
    try:
        async with httpx.AsyncClient(timeout=20) as http:
            answer = await http.get(f"{root}/lading/v1/network")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise unreachable(root, error) from error
    try:
        return str(answer.json()["endpoints"][0])
    except (ValueError, LookupError, TypeError):
        raise GatewayError(f"The coordinator at {root} does not say where to publish.", hint="Say it: --to.") from None
