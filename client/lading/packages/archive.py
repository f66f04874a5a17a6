"""An OCI image layout as named byte ranges, in a folder or in an uncompressed tar. Nothing is ever extracted.

Only the names of a layout are known here: `oci-layout`, `index.json` and `blobs/sha256/<64 hex digits>`. Links,
devices, sparse files, other names and names that stand twice are refused, because no honest tool writes them.
"""

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple, Protocol

from lading.errors import BadArtifact

BLOBS = "blobs/sha256"
_NAME = re.compile(r"oci-layout|index\.json|blobs/sha256/[0-9a-f]{64}")
_FOLDERS = frozenset({"", ".", "blobs", BLOBS})
_MOST_ENTRIES = 4096
_MOST_EXTENSION = 64 * 1024
_RECORD = re.compile(rb"(\d{1,6}) ([A-Za-z0-9_.]+)=")
_BLOCK = 512


class Source(Protocol):
    """Where the bytes of a layout come from."""

    def size(self, name: str) -> int:
        """Raises BadArtifact for a name that is not there, or is no plain file."""
        ...

    def read(self, name: str, offset: int, length: int) -> bytes: ...


@contextmanager
def opened(path: Path) -> Iterator[Source]:
    """Raises BadArtifact."""
    try:
        if path.is_dir():
            folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                yield _Folder(folder)
            finally:
                os.close(folder)
        else:
            with path.open("rb") as file:
                yield _Tar(file)
    except OSError as error:
        raise BadArtifact(f"{path.name} cannot be read: {os.strerror(error.errno or 0).lower()}.") from error


class _Folder:
    def __init__(self, folder: int) -> None:
        self._folder = folder

    def size(self, name: str) -> int:
        with self._file(name) as file:
            return os.fstat(file).st_size

    def read(self, name: str, offset: int, length: int) -> bytes:
        with self._file(name) as file:
            return os.pread(file, length, offset)

    @contextmanager
    def _file(self, name: str) -> Iterator[int]:
        """Opens one segment after the other, so that no link is followed on the way."""
        if not _NAME.fullmatch(name):
            raise BadArtifact(f"{name!r} is not a name of an OCI layout.")
        held = os.dup(self._folder)
        try:
            *folders, last = name.split("/")
            for segment in folders:
                held = _replaced(held, os.open(segment, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=held))
            held = _replaced(held, os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=held))
            if not stat.S_ISREG(os.fstat(held).st_mode):
                raise BadArtifact(f"{name} is not a plain file.")
            yield held
        except FileNotFoundError:
            raise BadArtifact(f"{name} is missing.") from None
        except OSError as error:
            raise BadArtifact(f"{name} is a link, or cannot be read ({os.strerror(error.errno or 0)}).") from error
        finally:
            os.close(held)


def _replaced(old: int, new: int) -> int:
    os.close(old)
    return new


class _Place(NamedTuple):
    offset: int
    size: int


class _Tar:
    """Reads the headers once. Sizes are believed only as far as the file itself reaches."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file.fileno()
        self._end = os.fstat(self._file).st_size
        self._places: dict[str, _Place] = {}
        at, size, entries = 0, None, 0
        while header := self._header(at):
            entries += 1
            if entries > _MOST_ENTRIES:
                raise BadArtifact(f"The archive has over {_MOST_ENTRIES} entries.")
            place = _Place(at + _BLOCK, size if size is not None else _number(header[124:136]))
            if place.offset + place.size > self._end:
                raise BadArtifact("The archive is cut off, or an entry claims more bytes than there are.")
            size = self._enter(header, place)
            at = place.offset + -(-place.size // _BLOCK) * _BLOCK

    def size(self, name: str) -> int:
        return self._place(name).size

    def read(self, name: str, offset: int, length: int) -> bytes:
        place = self._place(name)
        return os.pread(self._file, max(min(length, place.size - offset), 0), place.offset + offset)

    def _place(self, name: str) -> _Place:
        try:
            return self._places[name]
        except KeyError:
            raise BadArtifact(f"{name[:100]} is missing.") from None

    def _header(self, at: int) -> bytes:
        """Empty at the end of the archive."""
        header = os.pread(self._file, _BLOCK, at)
        if not header.strip(b"\0"):
            return b""
        if len(header) != _BLOCK or header[257:262] != b"ustar" or _number(header[148:156]) != _checksum(header):
            raise BadArtifact("This is no uncompressed tar of an OCI layout.", hint="Unpack a compressed one first.")
        return header

    def _enter(self, header: bytes, place: _Place) -> int | None:
        """Notes an entry; the size of the next one where an extension header says it."""
        kind = header[156:157]
        name = "/".join(part for part in (_text(header[345:500]), _text(header[:100])) if part)
        name = name.removeprefix("./").rstrip("/")
        if kind == b"x":
            return self._extension(place)
        if kind == b"5" and name in _FOLDERS:
            return None
        if kind not in (b"0", b"\0"):
            raise BadArtifact(f"The archive's entry {name[:100]!r} is a link or another thing that is no plain file.")
        if not _NAME.fullmatch(name):
            raise BadArtifact(f"The archive's entry {name[:100]!r} is not a name of an OCI layout.")
        if name in self._places:
            raise BadArtifact(f"The archive's entry {name} stands twice.")
        self._places[name] = place
        return None

    def _extension(self, place: _Place) -> int | None:
        """A size that does not fit its field is all that an extension may change; times and owners do not matter."""
        if place.size > _MOST_EXTENSION:
            raise BadArtifact("The archive has an extension header of an absurd size.")
        data, size = os.pread(self._file, place.size, place.offset), None
        while data:
            record = _RECORD.match(data)
            if record is None or not record.end() < int(record[1]) <= len(data):
                raise BadArtifact("The archive has a broken extension header.")
            value = data[record.end() : int(record[1]) - 1]
            if record[2] == b"size" and value.isdigit() and len(value) < 18:
                size = int(value)
            elif record[2] in (b"path", b"linkpath", b"size") or record[2].startswith(b"GNU.sparse"):
                raise BadArtifact("The archive changes names or sizes by extension headers.")
            data = data[int(record[1]) :]
        return size


def _number(field: bytes) -> int:
    """A number of a tar header: octal digits, or for large ones binary after a set bit."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big") % 2**63
    digits = field.strip(b" \0")
    if not re.fullmatch(rb"[0-7]*", digits):
        raise BadArtifact("The archive has a header with a number that is none.")
    return int(digits or b"0", 8)


def _checksum(header: bytes) -> int:
    return sum(header[:148]) + 8 * 32 + sum(header[156:])


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("ascii", "replace")
