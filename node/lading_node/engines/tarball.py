"""Walks the headers of a tar file, strictly: whatever two readers might understand differently is an error.

Data is skipped, never read. Plain files, folders and links only; POSIX and GNU headers, long names in either way; no
sparse files (a few bytes that unpack to terabytes), no devices, no sizes outside the header.
"""

from collections.abc import Iterator
from typing import IO, NamedTuple

BLOCK = 512
MOST_NAME = 4096
MOST_EXTRA = 1 << 16
_PLAIN = {"path", "linkpath", "mtime", "atime", "ctime", "uid", "gid", "uname", "gname", "comment"}
_KINDS = {"\0": "0", "0": "0", "1": "1", "2": "2", "5": "5"}


class BadTar(Exception):
    """A tar file is not what this reader takes; the text is the second half of a sentence."""


class Member(NamedTuple):
    """`kind` is "0" a file, "1" a hard link, "2" a symbolic link, "5" a folder; its data begins at `at`."""

    name: str
    kind: str
    size: int
    link: str
    at: int


def walk(file: IO[bytes], start: int, end: int) -> Iterator[Member]:
    """The members of the tar that lies between two offsets of a file. Raises BadTar."""
    at = start
    long: dict[str, str] = {}
    while True:
        header = _block(file, at, end)
        if not any(header):
            if at + 2 * BLOCK <= end and any(_block(file, at + BLOCK, end)):
                raise BadTar("a tar in it goes on after its end")
            return
        kind, size = _checked(header)
        at += BLOCK
        if kind in "xLK":
            more = _extra(kind, _data(file, at, size, end))
            if more.keys() & long.keys():
                raise BadTar("it gives one member two names")
            long |= more
            at += _padded(size)
            continue
        if kind not in _KINDS:
            raise BadTar(f"{_name(header)[:100]!r} is of the kind {kind!r} (a device, a sparse file or stranger)")
        member = Member(
            long.get("path") or _name(header), _KINDS[kind], size, long.get("linkpath") or _link(header), at
        )
        if member.kind != "0" and size:
            raise BadTar(f"{member.name[:100]!r} is no file and has a size")
        at += _padded(size)
        if at > end:
            raise BadTar(f"{member.name[:100]!r} claims more bytes than there are")
        yield member
        long = {}


def _block(file: IO[bytes], at: int, end: int) -> bytes:
    if at + BLOCK > end:
        raise BadTar("a tar in it is cut off")
    file.seek(at)
    return file.read(BLOCK)


def _data(file: IO[bytes], at: int, size: int, end: int) -> bytes:
    if size > MOST_EXTRA or at + size > end:
        raise BadTar(f"it has a name of {size} bytes")
    file.seek(at)
    return file.read(size)


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _checked(header: bytes) -> tuple[str, int]:
    """Kind and size of a header whose checksum is right and whose dialect is known."""
    said = _number(header[148:156])
    if sum(header[:148]) + 8 * 0x20 + sum(header[156:]) != said:
        raise BadTar("it is not a plain tar (compressed, or cut)")
    if header[257:265] not in (b"ustar\x0000", b"ustar  \0") or header[508:512] == b"tar\0":
        raise BadTar("a tar in it is of an unknown dialect")
    return chr(header[156]), _number(header[124:136])


def _number(field: bytes) -> int:
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    if not digits:
        return 0
    if not all(digit in b"01234567" for digit in digits):
        raise BadTar("a header in it holds a number that is none")
    return int(digits, 8)


def _extra(kind: str, data: bytes) -> dict[str, str]:
    """What a header before the header says: a long name, or POSIX records of which only harmless ones are taken."""
    if kind != "x":
        name = data.rstrip(b"\0")
        if len(name) > MOST_NAME:
            raise BadTar(f"it has a name of {len(name)} bytes")
        return {"path" if kind == "L" else "linkpath": _text(name)}
    found = {}
    while data:
        size, space, _ = data.partition(b" ")
        if not space or not size.isdigit() or len(size) > 6 or not len(size) < int(size) <= len(data):
            raise BadTar("a record in it has a wrong length")
        key, equals, value = data[len(size) + 1 : int(size) - 1].partition(b"=")
        if not equals or data[int(size) - 1 : int(size)] != b"\n":
            raise BadTar("a record in it is none")
        if key.decode("latin-1") not in _PLAIN and not key.startswith(b"SCHILY.xattr."):
            raise BadTar(f"a record in it says {key[:60].decode('latin-1')!r}")
        if key in (b"path", b"linkpath"):
            found[key.decode()] = _text(value)
        data = data[int(size) :]
    return found


def _name(header: bytes) -> str:
    name = header[:100].partition(b"\0")[0]
    if header[257:263] == b"ustar\0" and (prefix := header[345:500].partition(b"\0")[0]):
        name = prefix + b"/" + name
    return _text(name)


def _link(header: bytes) -> str:
    return _text(header[157:257].partition(b"\0")[0])


def _text(name: bytes) -> str:
    if b"\0" in name or len(name) > MOST_NAME:
        raise BadTar("it has a name that is none")
    return name.decode("utf-8", "surrogateescape")
