"""Builds the folder: a copy of all sources, and beside those named in modules.txt their machine code.

All of them are one group for mypyc, so that calls from one to another are calls of C. The folder is whole or not there.
"""

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from compiling.limits import oddities
from compiling.records import SUFFIX, part

ROOT = Path(__file__).resolve().parents[2]
_TOOLS = Path("tools", "compiling")
FOLDER = ROOT / "build" / "compiled"
GROUP = "lading"
_NATIVE = Path("lading_protocol", "_native.c")
STAMP = "compiled.json"
_GUARDED = "lading_protocol"  # every other package imports it
_SETUP = """
import sys
from mypyc.build import mypycify
from setuptools import Extension, setup
group, cache, native, *paths = sys.argv[1:]
options = ["--ignore-missing-imports", "--no-warn-unused-ignores", "--cache-dir", cache]
modules = mypycify([*options, *paths], opt_level="2", debug_level="0", multi_file=True, group_name=group)
modules.append(Extension(native.removesuffix(".c").replace("/", "."), [native], extra_compile_args=["-O2"]))
setup(name=group, packages=[], ext_modules=modules, script_args=["-q", "build_ext", "--inplace"])
"""


# All modules are in one library, so that nothing outside need find their functions: calls are direct, tables small.
_FLAGS = ("-fvisibility=hidden", "-fno-semantic-interposition")


class BuildFailed(Exception):
    """mypyc or the C compiler said no, in words on stderr, or a module has what mypyc gets wrong."""


# For a build that counts how often each branch is taken, and for one that goes by what was counted. A thread may count
# too little beside another one, and what was never run has no counts.
_COUNTING = ("-fprofile-generate={}", "-fprofile-update=prefer-atomic")
_GOING_BY = ("-fprofile-use={}", "-fprofile-correction", "-Wno-missing-profile")
COUNTS = FOLDER.with_name("counts")


def lacking() -> str:
    """What this machine lacks to compile, in words; "" for nothing."""
    compiler = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
    if shutil.which(compiler.split()[0]) is None:
        return f"there is no C compiler here ({compiler.split()[0]})"
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        return "this Python came without its header files"
    missing = [name for name in ("mypyc", "setuptools") if importlib.util.find_spec(name) is None]
    return f"{' and '.join(missing)} is not installed" if missing else ""


def lacking_to_tune() -> str:
    """What it lacks to compile by counts, in words; "" for nothing."""
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()
    if why := lacking():
        return why
    told = subprocess.run([*compiler, "-v"], capture_output=True, text=True, check=False).stderr
    return "" if "gcc version" in told else f"{compiler[0]} is not gcc"


def modules() -> list[Path]:
    """What is compiled, from ROOT."""
    return [Path(line) for line in (ROOT / _TOOLS / "modules.txt").read_text().split()]


def packages() -> list[Path]:
    """What a wheel holds, from ROOT."""
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return [Path(each) for each in told["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]]


def sources() -> list[Path]:
    """Every Python file of the packages, what is C, and what decides how they are compiled; from ROOT."""
    found = [path for each in packages() for path in (ROOT / each).rglob("*.py") if "node_modules" not in path.parts]
    found += [*(ROOT / _TOOLS).glob("*.py"), ROOT / _TOOLS / "modules.txt", ROOT / "protocol" / _NATIVE]
    return sorted(path.relative_to(ROOT) for path in found)


def fresh(folder: Path = FOLDER) -> bool:
    """Whether the folder was built from the sources as they are now, for this Python and by this mypyc."""
    told = _stamp(folder)
    return bool(told.get("made by") == _made_by() and told["digests"] == _digests())


def tuned(folder: Path = FOLDER) -> bool:
    return bool(_stamp(folder).get("tuned"))


def tune(train: Callable[[Path], None]) -> list[Path]:
    """As `build`, but `train` runs a first build, which counts, and the second one is made for what was counted: 5 to
    11 % less CPU for twice the time to compile. Raises BuildFailed."""
    shutil.rmtree(COUNTS, ignore_errors=True)
    counting = FOLDER.with_name("counting")
    try:
        build(counting, guarded=False, flags=_with_counts(_COUNTING))
        train(counting)
        return build(flags=_with_counts(_GOING_BY))
    finally:
        shutil.rmtree(counting, ignore_errors=True)
        shutil.rmtree(COUNTS, ignore_errors=True)


def _with_counts(flags: Iterable[str]) -> tuple[str, ...]:
    return tuple(flag.format(COUNTS) for flag in flags)


def build(folder: Path = FOLDER, *, guarded: bool = True, flags: tuple[str, ...] = ()) -> list[Path]:
    """Returns what was made beside the sources, from `folder`. Raises BuildFailed, and leaves an older folder then.

    With `guarded` nothing in it can be imported once a source was edited (guard.py). `flags` are the C compiler's."""
    staged = folder.with_name(FOLDER.name + ".part")  # of one name for all: counts are kept by the path
    shutil.rmtree(staged, ignore_errors=True)
    stamp = {"made by": _made_by(), "root": str(ROOT), "tuned": bool(flags), "digests": _digests()}
    for each in packages():
        shutil.copytree(ROOT / each, staged / each.name, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
    try:
        made = _compile(staged, flags)
    except BuildFailed:
        shutil.rmtree(staged)
        raise
    if guarded:
        shutil.copy2(ROOT / _TOOLS / "guard.py", staged / _GUARDED / "_guard.py")
        with (staged / _GUARDED / "__init__.py").open("a") as init:
            init.write(f"\nfrom {_GUARDED} import _guard as _guard\n")
    (staged / STAMP).write_text(json.dumps(stamp, indent=1))
    shutil.rmtree(folder, ignore_errors=True)
    staged.rename(folder)
    return made


def _compile(staged: Path, flags: tuple[str, ...]) -> list[Path]:
    there = set(staged.rglob("*"))
    originals = {Path(*each.parts[1:]): (staged / Path(*each.parts[1:])).read_bytes() for each in modules()}
    odd: list[str] = []
    for path, source in originals.items():
        parted = part(source.decode(), ".".join(path.with_suffix("").parts))
        odd += [f"{path}, {one}" for one in oddities(parted.rest)]
        if parted.records:
            (staged / path.with_name(path.stem + SUFFIX + ".py")).write_text(parted.records)
            (staged / path).write_text(parted.rest)
    if odd:
        raise BuildFailed("; ".join(odd))
    arguments = [GROUP, str(FOLDER.with_name("mypy_cache")), str(_NATIVE), *map(str, originals)]
    all_flags = {"CFLAGS": " ".join(filter(None, [os.environ.get("CFLAGS"), *_FLAGS, *flags]))}
    command = [sys.executable, "-c", _SETUP, *arguments]
    done = subprocess.run(command, cwd=staged, stdout=sys.stderr, check=False, env=os.environ | all_flags)
    if done.returncode:
        raise BuildFailed("mypyc or the C compiler ended with an error, see above")
    shutil.rmtree(staged / "build", ignore_errors=True)
    for path, source in originals.items():  # for tracebacks, and for a Python that the machine code is not for
        (staged / path).write_bytes(source)
    return sorted(path.relative_to(staged) for path in set(staged.rglob("*")) - there if path.is_file())


def _stamp(folder: Path) -> dict[str, Any]:
    """What was written beside a build; empty where there is none."""
    try:
        told: dict[str, Any] = json.loads((folder / STAMP).read_text())
    except (OSError, ValueError):
        return {}
    return told


def _made_by() -> list[str]:
    return [sys.version, version("mypy")]


def _digests() -> dict[str, str]:
    return {str(path): hashlib.sha256((ROOT / path).read_bytes()).hexdigest() for path in sources()}
