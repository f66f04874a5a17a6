"""A package's files at their paths, for an engine to open: cloned or copied out of the store, every byte checked.

Never hard links: who writes to a linked file writes into the store, and ONNX Runtime's guard against files outside the
model's folder does not see them. Where the file system clones (btrfs, xfs), blocks are shared until someone writes.
"""

import errno
import fcntl
import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from lading.errors import BadPackage
from lading_protocol.ids import digest
from lading_protocol.manifest import Manifest
from lading_protocol.parts import CHUNK_SIZE, File

_CLONE = 0x40049409  # FICLONE of linux/fs.h
_NO_CLONE = {errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.ETXTBSY}


def lay_out(manifest: Manifest, path: Callable[[bytes], Path], folder: Path) -> None:
    """Files lie below `folder`, read-only. What stands there is kept if all of it is right. Raises BadPackage."""
    files = [file for file in manifest.files if file.role != "delta"]
    if _stands(files, folder):
        return
    staging = folder.with_name(folder.name + ".new")
    shutil.rmtree(staging, ignore_errors=True)
    try:
        for file in files:
            _place(file, path(digest(file.digest)), staging / file.path)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)
    staging.rename(folder)


def _place(file: File, source: Path, target: Path) -> None:
    if source.stat().st_size != file.size:
        raise BadPackage(f"{file.path} has {source.stat().st_size:,} bytes, and the manifest says {file.size:,}.")
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as reader, target.open("xb+") as writer:
        if _clone(reader.fileno(), writer.fileno()):
            right = _sha256(writer.fileno()) == digest(file.digest)
        else:
            seen = hashlib.sha256()
            while data := reader.read(CHUNK_SIZE):
                seen.update(data)
                writer.write(data)
            right = seen.digest() == digest(file.digest)
    if not right:
        raise BadPackage(f"The stored copy of {file.path} was altered.", hint="Remove it and fetch it again.")
    target.chmod(0o444)


def _clone(source: int, target: int) -> bool:
    try:
        fcntl.ioctl(target, _CLONE, source)
    except OSError as error:
        if error.errno not in _NO_CLONE:
            raise
        return False
    return True


def _stands(files: list[File], folder: Path) -> bool:
    """Whether exactly these files lie there, whole, linked nowhere else and not to be written."""
    found = set(_walk(folder)) if folder.is_dir() and not folder.is_symlink() else set()
    if found != {file.path for file in files}:
        return False
    return all(_right(file, folder / file.path) for file in files)


def _walk(folder: Path) -> Iterator[str]:
    for place, folders, names in os.walk(folder):
        inside = Path(place)
        for name in (*names, *(each for each in folders if (inside / each).is_symlink())):
            yield (inside / name).relative_to(folder).as_posix()


def _right(file: File, path: Path) -> bool:
    try:
        number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:  # a link, or a folder that is none
        return False
    try:
        found = os.fstat(number)
        plain = stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and stat.S_IMODE(found.st_mode) == 0o444
        return plain and found.st_size == file.size and _sha256(number) == digest(file.digest)
    finally:
        os.close(number)


def _sha256(number: int) -> bytes:
    with open(number, "rb", buffering=0, closefd=False) as reader:
        reader.seek(0)
        return hashlib.file_digest(reader, "sha256").digest()
