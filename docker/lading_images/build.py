"""Builds the images of this folder by name, each from its image.toml: base, wheels, then files, a layer each.

What was built lies in build/images, and is built again only when something that it is made of has changed.
"""

import hashlib
import inspect
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from lading_images import base, bytecode, pack
from lading_images.base import BuildError, build_base
from lading_images.bytecode import compiled
from lading_images.pack import Entry, Layer, write_image, write_layer

DOCKER = Path(__file__).resolve().parents[1]
ROOT = DOCKER.parent
BUILD = ROOT / "build" / "images"
PYTHON = (3, 11)
NOBODY = "65534:65534"
WHEELS = "usr/lib/python3/dist-packages"
# What pip writes about this machine and this minute; and programs that name this machine's Python.
_UNSTEADY = {"direct_url.json", "INSTALLER", "RECORD", "REQUESTED"}


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An image.toml. `files` maps paths in the image to paths beside the recipe.

    `packages` are Debian's; `wheels` are Python's, with the versions of constraints.txt and without what they depend
    on; `lading` names an extra of this project, which is then installed with all that it needs. `prepare` is a command
    for the checkout that makes files which are not committed.
    """

    command: tuple[str, ...]
    files: dict[str, str] = {}
    packages: tuple[str, ...] = ()
    wheels: tuple[str, ...] = ()
    lading: str = ""
    prepare: tuple[str, ...] = ()
    environment: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class Built:
    """`id` is what an engine will call the image."""

    archive: Path
    id: str


def recipes() -> dict[str, Path]:
    """The folders of all images by name."""
    return {path.parent.name: path.parent for path in sorted(DOCKER.glob("**/image.toml"))}


def build(name: str, folder: Path = BUILD) -> Built:
    """Raises BuildError."""
    if sys.version_info[:2] != PYTHON:
        raise BuildError("images hold Python {}.{}: build them with the same".format(*PYTHON))
    if (source := recipes().get(name)) is None:
        raise BuildError(f"there is no image {name!r}; there are {', '.join(recipes())}")
    recipe = msgspec.convert(tomllib.loads((source / "image.toml").read_text()), Recipe)
    if recipe.prepare:
        _run([sys.executable, *recipe.prepare])
    files = [Entry(path, source / below) for path, below in recipe.files.items()]
    folder.mkdir(parents=True, exist_ok=True)
    bottom = base_layer(folder, recipe.packages)
    made_of = _made_of(recipe, files, bottom)
    archive, note = folder / f"{name}.tar", folder / f"{name}.json"
    if archive.exists() and note.exists() and (seen := json.loads(note.read_text()))["made_of"] == made_of:
        return Built(archive, seen["id"])
    note.unlink(missing_ok=True)
    id = _assemble(recipe, files, bottom, archive)
    note.write_text(json.dumps({"made_of": made_of, "id": id}))
    return Built(archive, id)


def hand_over(name: str, built: Built) -> Path | None:
    """Put the image beside the agent.toml that names it: a project's files lie in its folder. None where there is no
    agent."""
    source = recipes()[name]
    if not (source / "agent.toml").exists():
        return None
    target, fresh = source / "image.tar", source / "image.tar.new"
    fresh.unlink(missing_ok=True)
    try:
        os.link(built.archive, fresh)
    except OSError:  # another file system
        shutil.copyfile(built.archive, fresh)
    fresh.replace(target)
    fresh.unlink(missing_ok=True)  # a rename onto the same file leaves both names
    return target


def _assemble(recipe: Recipe, files: list[Entry], bottom: Layer, archive: Path) -> str:
    # Of its own: two programs may build the same image at a time, and the last one's archive stays.
    work = Path(tempfile.mkdtemp(prefix=f"{archive.stem}-", dir=archive.parent))
    try:
        layers = [bottom]
        if recipe.wheels or recipe.lading:
            found = list(_wheels(recipe, work))
            layers.append(write_layer([*found, *compiled(found, work)], work / "wheels.tar"))
        layers.append(write_layer(files, work / "files.tar"))
        environment = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"} | recipe.environment
        settings = {
            "Entrypoint": list(recipe.command),
            "Env": [f"{key}={value}" for key, value in environment.items()],
            "User": NOBODY,
            "WorkingDir": "/",
        }
        # An agent's image has no name: whoever runs it knows it by its digest.
        name = f"lading-{archive.stem}:latest" if recipe.lading else ""
        id = write_image(layers, settings, work / "image.tar", name)
        (work / "image.tar").replace(archive)
        return id
    finally:
        shutil.rmtree(work, ignore_errors=True)


def base_layer(folder: Path, extra: tuple[str, ...] = ()) -> Layer:
    """Kept under the names of its packages: newer versions come with a build folder that is new."""
    made_by = [inspect.getsource(module) for module in (base, bytecode, pack)]
    key = hashlib.sha256("\n".join([*extra, sys.version, *made_by]).encode()).hexdigest()[:16]
    kept = folder / f"base-{key}" / "base.tar"
    if not kept.exists():
        fresh = Path(tempfile.mkdtemp(prefix="base-", dir=folder))
        build_base(fresh, extra)
        try:
            fresh.replace(kept.parent)
        except OSError:  # somebody was faster, with the same bytes
            shutil.rmtree(fresh)
    with kept.open("rb") as file:
        return Layer(kept, hashlib.file_digest(file, "sha256").hexdigest(), kept.stat().st_size)


def _wheels(recipe: Recipe, work: Path) -> Iterator[Entry]:
    """First to a folder of wheels, then from that folder alone."""
    wheels, target = work / "wheels", work / "site"
    constraints = ["--constraint", str(ROOT / "constraints.txt")]
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    wanted = [f"{ROOT}[{recipe.lading}]"] if recipe.lading else ["--no-deps", *recipe.wheels]
    _run([*pip, "wheel", "--wheel-dir", str(wheels), *constraints, *wanted])
    found = sorted(map(str, wheels.glob("*.whl")))
    _run([*pip, "install", "--no-index", "--no-deps", "--no-compile", "--target", str(target), *found])
    for path in sorted(target.rglob("*")):
        below = path.relative_to(target)
        if path.is_file() and below.parts[0] != "bin" and not (".dist-info" in str(below) and path.name in _UNSTEADY):
            yield Entry(f"{WHEELS}/{below}", path)


def _made_of(recipe: Recipe, files: list[Entry], bottom: Layer) -> str:
    seen = hashlib.sha256(msgspec.json.encode(recipe) + bottom.digest.encode())
    sources = [Path(pack.__file__), Path(bytecode.__file__), Path(__file__)]
    if recipe.wheels or recipe.lading:
        sources.append(ROOT / "constraints.txt")
    if recipe.lading:
        roots = ("protocol", "client", "contracts/lading_contracts", "node", "coordinator", "pyproject.toml")
        for root in roots:
            found = (ROOT / root).rglob("*") if (ROOT / root).is_dir() else [ROOT / root]
            sources += sorted(path for path in found if path.is_file() and "__pycache__" not in path.parts)
    for path in [*sources, *(entry.data for entry in files if isinstance(entry.data, Path))]:
        with path.open("rb") as file:
            seen.update(str(path.relative_to(ROOT)).encode() + hashlib.file_digest(file, "sha256").digest())
    return seen.hexdigest()


def _run(command: list[str]) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip() or "it says nothing").splitlines()
        raise BuildError(f"{' '.join(command[:4])} ... failed: {lines[-1]}")
