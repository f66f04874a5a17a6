"""`lading agent`: from a model folder to a published agent, and what a package holds."""

import tempfile
from pathlib import Path
from typing import Any

import msgspec
from cyclopts import App

from lading import publisher
from lading.blobs import BlobStore
from lading.cli import consents, context, lineage
from lading.cli.agent_publish import own_store, signature_path
from lading.cli.auctions import typed_agent
from lading.cli.flags import Home, Json
from lading.cli.output import emit
from lading.cli.package_words import show
from lading.detect import detect
from lading.errors import BadProject
from lading.project import FILE, vectors
from lading.publisher import More
from lading.sketch import EXAMPLE, sketch
from lading_protocol.errors import BadManifest
from lading_protocol.ids import AgentId, address, to_hex
from lading_protocol.manifest import MAX_MANIFEST, Manifest, agent_id, load, model_id

app = App(name="agent", help="From a model folder to a published agent: init, run, publish. And what comes after.")
app.command("lading_node.cli_trial:run", name="run", help="Ask an agent on this machine, in a host's own sandbox.")
app.command(
    "lading_node.cli_trial:try_vectors", name="test", help="Run an agent's test vectors in a host's own sandbox."
)
for _verb, _help in (
    ("publish", "Register an agent, hand it to a coordinator, and make it the current release."),
    ("update", "Publish the next release, and have hosts follow."),
    ("yank", "Take a release back for good."),
):
    app.command(f"lading.cli.agent_publish:{_verb}", name=_verb, help=_help)
for command in (consents.consent, consents.policy, lineage.terms, lineage.sunset, lineage.supersede):
    app.command(command)

_NOBODY = address("0x" + "00" * 20)


@app.command
def init(folder: Path, /, *, as_json: Json = False) -> int:
    """Write an agent.toml from what lies in a folder: a Hugging Face model, ONNX, WebAssembly, or an image archive.

    Parameters
    ----------
    folder
        Where the files are; a new one gets an example.
    """
    path = folder / FILE
    if path.exists() or path.is_symlink():
        raise BadProject(f"{path} exists already.", hint="Edit it, then: lading agent publish.")
    folder.mkdir(parents=True, exist_ok=True)
    found = detect(folder)
    name = "".join(c if c.isascii() and c.isalnum() else "-" for c in folder.resolve().name.lower()).strip("-")[:63]
    path.write_text(sketch(found or EXAMPLE, name or "agent", folder))
    chosen = found or EXAMPLE
    after = f"lading agent run {folder}" if found else f"edit it, then: lading agent run {folder}"
    told: dict[str, Any] = {"wrote": str(path), "found": chosen.what if found else "nothing that is known"}
    engines = [str(runtime["engine"]) for runtime in chosen.runtimes]
    told["engines"] = engines if as_json else ", ".join(engines)
    emit(told | {"next": after}, as_json)
    return 0


@app.command
def inspect(package: str, /, *, home: Home = None, as_json: Json = False) -> int:
    """Show what a package holds and asks for.

    Parameters
    ----------
    package
        A project folder, a manifest file, an OCI artifact, or the 0x digest of an agent in your own store.
    """
    with tempfile.TemporaryDirectory() as scratch:
        agent, manifest = _opened(package, home, BlobStore(Path(scratch)))
    if as_json:
        models = {model.alias: to_hex(model_id(manifest, model)) for model in manifest.models}
        told = {"agent": to_hex(agent), "models": models, "manifest": manifest}
        print(msgspec.json.encode(told).decode())
        return 0
    show(agent if manifest.publisher_address != _NOBODY else None, manifest)
    return 0


@app.command(name="export")
def export_command(agent: str, path: Path, /, *, home: Home = None, as_json: Json = False) -> int:
    """Write a package as an OCI artifact, for any registry to carry: an archive, or a folder.

    Parameters
    ----------
    agent
        The 0x digest of an agent in your own store.
    path
        A new .tar file, or a new folder.
    """
    from lading.packages.artifact import export_artifact

    chosen = context.settings(home=home)
    which = typed_agent(agent)
    kept = signature_path(chosen, which)
    export_artifact(own_store(chosen), which, path, (kept.read_bytes(),) if kept.is_file() else ())
    emit({"agent": to_hex(which), "wrote": str(path), "signed": kept.is_file()}, as_json)
    return 0


@app.command(name="import")
def import_command(path: Path, /, *, home: Home = None, as_json: Json = False) -> int:
    """Take a package out of an OCI artifact into your own store, every byte checked.

    Parameters
    ----------
    path
        The archive or the folder.
    """
    from lading.packages.unload import import_artifact

    store = own_store(context.settings(home=home))
    agent = import_artifact(path, store)
    manifest = store.manifest(agent)
    emit({"agent": to_hex(agent), "name": f"{manifest.name} {manifest.version}", "bytes": manifest.size}, as_json)
    return 0


# --- inside ---


def _opened(package: str, home: str | None, scratch: BlobStore) -> tuple[AgentId, Manifest]:
    """Raises BadProject, BadManifest."""
    path = Path(package)
    if package.startswith("0x") and not path.exists():
        agent = typed_agent(package)
        return agent, own_store(context.settings(home=home)).manifest(agent)
    if path.is_dir() and (path / FILE).exists():
        project = publisher.load_project(path)
        return publisher.pack(
            project, path, _NOBODY, scratch, More(vectors=all(one.is_recorded for one in vectors(project, path)))
        )
    if path.is_dir() or path.suffix == ".tar":
        from lading.packages.unload import import_artifact

        agent = import_artifact(path, scratch)
        return agent, scratch.manifest(agent)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_MANIFEST + 1)
    except OSError as error:
        raise BadManifest(f"{path} cannot be read ({error.strerror}).") from error
    return agent_id(data), load(data)
