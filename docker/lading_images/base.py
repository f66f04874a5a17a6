"""The base root file system: Debian's Python and the libraries that it and compiled wheels need, and nothing else.

Packages are unpacked, none of their scripts runs, so there is no shell, no package tool and nothing that differs
between two runs. Other versions of the packages give other bytes; their names and versions are in the layer.
"""

import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

from lading_images.bytecode import compiled
from lading_images.pack import Entry, Layer, write_layer

SUITE = "bookworm"
PACKAGES = ("libgcc-s1", "libstdc++6", "python3", "python3-minimal", "zlib1g")
VERSIONS = "usr/share/lading/packages"
# What no agent runs or reads; a device or a file with a time in it would also differ from run to run.
_DROPPED = (
    "bin/tar",
    "boot",
    "dev",
    "etc/alternatives",
    "etc/apt",
    "etc/cron.daily",
    "etc/dpkg",
    "etc/fstab",
    "etc/hostname",
    "etc/logrotate.d",
    "etc/resolv.conf",
    "lib/systemd",
    "sbin",
    "usr/bin/dpkg",
    "usr/bin/perl",
    "usr/bin/update-alternatives",
    "usr/include",
    "usr/lib/python3.11/__pycache__",
    "usr/lib/python3.11/ensurepip",
    "usr/lib/python3.11/idlelib",
    "usr/lib/python3.11/lib2to3",
    "usr/lib/python3.11/pydoc_data",
    "usr/lib/systemd",
    "usr/lib/x86_64-linux-gnu/perl",
    "usr/lib/x86_64-linux-gnu/perl-base",
    "usr/libexec",
    "usr/sbin",
    "usr/share",
    "var/cache",
    "var/lib",
    "var/log",
)
_KEPT = ("usr/share/python3", "usr/share/zoneinfo")
_ACCOUNTS = {
    "etc/passwd": b"root:x:0:0:root:/:/sbin/nologin\nnobody:x:65534:65534:nobody:/tmp:/sbin/nologin\n",
    "etc/group": b"root:x:0:\nnogroup:x:65534:\n",
    "etc/nsswitch.conf": b"passwd: files\ngroup: files\nhosts: files dns\n",
}


class BuildError(Exception):
    """An image cannot be built here; the text says why."""


def build_base(folder: Path, extra: tuple[str, ...] = ()) -> Layer:
    """Unpack the packages, and `extra` ones, below `folder`, and write the layer there."""
    tool = shutil.which("mmdebstrap")
    if tool is None:
        raise BuildError("mmdebstrap is not installed: apt-get install mmdebstrap")
    folder.mkdir(parents=True, exist_ok=True)
    raw = folder / "raw.tar"
    names = ",".join(sorted({*PACKAGES, *extra}))
    unpacked = folder / "packages"
    note = f'--extract-hook=ls "$1/var/cache/apt/archives" > "{unpacked}"'
    command = [tool, "--quiet", "--variant=extract", "--format=tar", f"--include={names}", note, SUITE, str(raw)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        words = done.stderr.strip().splitlines() or ["it says nothing"]
        raise BuildError(f"mmdebstrap failed: {words[-1]}")
    try:
        versions = Entry(VERSIONS, _versions(unpacked.read_text()))
        with tarfile.open(raw) as tar:
            entries = [*_normal(tar), versions]
        return write_layer([*entries, *compiled(entries, folder)], folder / "base.tar")
    finally:
        raw.unlink()


def _normal(tar: tarfile.TarFile) -> Iterator[Entry]:
    for member in tar:
        path = member.name.removeprefix("./")
        if path in ("", ".") or _dropped(path):
            continue
        if member.isdir():
            yield Entry(path)
        elif member.issym():
            yield Entry(path, link=member.linkname)
        elif member.isfile() or member.islnk():
            yield Entry(path, _read(tar, member), executable=bool(member.mode & 0o100))
    for path, data in _ACCOUNTS.items():
        yield Entry(path, data)
    yield Entry("tmp")


def _read(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    assert file is not None
    return file.read()


def _dropped(path: str) -> bool:
    if any(path == kept or path.startswith(kept + "/") for kept in _KEPT):
        return False
    return any(path == gone or path.startswith((gone + "/", gone + "-")) for gone in _DROPPED)


def _versions(listing: str) -> bytes:
    """One line a package, name_version_architecture, from the names of the archives."""
    return "".join(sorted(f"{name[:-4]}\n" for name in listing.split() if name.endswith(".deb"))).encode()
