"""Builds the sample agents: `python wasm_agents/build.py [name ...] [--into FOLDER]`.

redact needs Debian's rustc with its wasm32 library, search clang, lld and binaryen, whose wasm-opt clang runs where it
finds it; both give the same bytes every time. extract needs componentize-py, which freezes a running Python: file times
and a seed of the build's own are part of it, so two builds differ in a few hundred bytes and answer alike.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
RUSTC = "/usr/bin/rustc"
CLANG = "clang-14"


class CannotBuild(Exception):
    """A tool is missing or refuses; the text says which and how to get it."""


def redact(into: Path) -> Path:
    out = into / "redact.wasm"
    options = ["--edition=2021", "--crate-type=cdylib", "--target=wasm32-unknown-unknown", "--crate-name=redact"]
    codegen = ["opt-level=s", "lto=fat", "panic=abort", "strip=symbols", "codegen-units=1"]
    flags = [part for each in codegen for part in ("-C", each)]
    _run([RUSTC, *options, *flags, "-o", str(out), "redact.rs"], HERE / "redact", "apt-get install " + _RUST)
    return out


def search(into: Path) -> Path:
    out = into / "search.wasm"
    options = ["--target=wasm32", "-std=c11", "-Oz", "-nostdlib", "-ffreestanding", "-fno-builtin", "-Wall", "-Wextra"]
    flags = [f"-Wl,{each}" for each in ("--no-entry", "--strip-all", "-z,stack-size=65536")]
    how = "apt-get install clang-14 lld-14 binaryen"
    _run([CLANG, *options, *flags, "-o", str(out), "search.c"], HERE / "search", how)
    return out


def extract(into: Path) -> Path:
    """Python, its interpreter and its modules in one component: 18 MB, so it is built where it is used."""
    out = into / "extract.wasm"
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(HERE / "extract" / "extract.py", folder)
        module = [sys.executable, "-c", "import sys, componentize_py; sys.exit(componentize_py.script())"]
        wit = ["-q", "-d", str(HERE / "wit"), "-w", "agent"]
        command = [*module, *wit, "componentize", "--stub-wasi", "-p", folder, "extract", "-o", str(out)]
        _run(command, Path(folder), "pip install componentize-py==0.25.1")
    return out


_RUST = "rustc libstd-rust-dev-wasm32 lld"
AGENTS: dict[str, Callable[[Path], Path]] = {"redact": redact, "search": search, "extract": extract}


def _run(command: list[str], where: Path, how: str) -> None:
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C", "SOURCE_DATE_EPOCH": "0"}
    try:
        done = subprocess.run(command, cwd=where, env=environment, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise CannotBuild(f"{command[0]} is not installed: {how}") from None
    if done.returncode:
        raise CannotBuild(f"{Path(command[0]).name} fails: {done.stderr.strip()[-2000:]}")


def _folder(name: str, into: Path | None) -> Path:
    """The committed modules lie beside their sources; the large one is kept out of the repository."""
    own = HERE / name / "build" if name == "extract" else HERE / name
    folder = (into or own).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=[], help=", ".join(AGENTS))
    parser.add_argument("--into", type=Path, help="another folder than the agents' own")
    asked = parser.parse_args()
    for name in asked.names or AGENTS:
        try:
            print(AGENTS[name](_folder(name, asked.into)))
        except CannotBuild as error:
            sys.exit(str(error))


if __name__ == "__main__":
    main()
