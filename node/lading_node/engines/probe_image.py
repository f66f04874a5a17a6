"""The image of the container tiers' self-test: this very Python, only as much of it as the attempts need, and them.

Made from this machine's own files, so it needs no registry; the same files give the same bytes and the same id.
"""

import functools
import hashlib
import io
import json
import os
import platform
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import NamedTuple

from lading_node.engines import attempts

_TRIAL_S = 20.0
_LOADERS = ("/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1")
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
_PAYLOAD = "/attempts.py"
# Loads what the attempts load, then tells which files that took.
_ASK = """
import sys, runpy, json
runpy.run_path(sys.argv[1], run_name="asked")
import encodings.idna, encodings.ascii, encodings.latin_1, os
"a".encode("idna")
modules = [found for module in list(sys.modules.values()) if (found := getattr(module, "__file__", None))]
with open("/proc/self/maps") as maps:
    mapped = [line.split(None, 5)[5].strip() for line in maps if "/" in line]
print(json.dumps([os.path.abspath(path) for path in {*modules, *mapped} if os.path.isfile(path)]))
"""


class Image(NamedTuple):
    """`archive` is what a container engine loads, `id` what it calls the image then."""

    archive: bytes
    id: str
    tag: str


@functools.cache
def probe_image() -> Image:
    """Blocks for a moment. Raises OSError, subprocess.SubprocessError."""
    python = os.path.realpath(sys.executable)
    asked = subprocess.run(
        [python, "-I", "-S", "-B", "-c", _ASK, attempts.__file__],
        capture_output=True,
        text=True,
        timeout=_TRIAL_S,
        check=True,
    )
    found = json.loads(asked.stdout)
    paths = {*found, *_names(found), *(path for path in _LOADERS if os.path.exists(path))}
    files = {path: Path(path).read_bytes() for path in sorted(paths)} | {_PAYLOAD: Path(attempts.__file__).read_bytes()}
    layer = _tar(files)
    libraries = sorted({os.path.dirname(path) for path in paths if ".so" in os.path.basename(path)})
    config = json.dumps(
        {
            "architecture": _MACHINES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "config": {
                "Cmd": [python, "-I", "-S", "-B", _PAYLOAD],
                "Env": [f"LD_LIBRARY_PATH={':'.join(libraries)}"],
            },
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        },
        sort_keys=True,
    ).encode()
    name = hashlib.sha256(config).hexdigest()
    listed = json.dumps([{"Config": f"{name}.json", "RepoTags": None, "Layers": ["layer.tar"]}]).encode()
    archive = _tar({f"{name}.json": config, "layer.tar": layer, "manifest.json": listed})
    return Image(archive, f"sha256:{name}", f"lading-probe:{name}")


def _names(paths: list[str]) -> set[str]:
    """A library is asked for by the name of a link to it, and mapped by its own."""
    libraries = [Path(path) for path in paths if ".so." in path]
    beside = ((path, link) for path in libraries for link in path.parent.glob(f"{path.name.partition('.so')[0]}.so*"))
    return {str(link) for path, link in beside if os.path.realpath(link) == str(path)}


def _tar(files: dict[str, bytes]) -> bytes:
    """Plain files with their folders, without times or owners."""
    out = io.BytesIO()
    folders: set[str] = set()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path, data in files.items():
            name = path.lstrip("/")
            for folder in reversed(list(map(str, Path(name).parents))[:-1]):
                if folder not in folders:
                    folders.add(folder)
                    entry = tarfile.TarInfo(folder)
                    entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                    archive.addfile(entry)
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o755
            archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()
