"""Which paths a package may hold: plain names that mean the same file on every system."""

import re

from lading_protocol.errors import BadManifest

_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
# Names that Windows keeps for devices, with or without an ending.
_DEVICES = frozenset({"con", "prn", "aux", "nul", *(f"{port}{i}" for port in ("com", "lpt") for i in range(10))})


def check_path(path: str) -> None:
    """Raises BadManifest."""
    for segment in path.split("/"):
        if not _SEGMENT.fullmatch(segment) or segment.endswith("."):
            raise BadManifest(f"The path {path[:80]!r} is not made of plain names.")
        if segment.split(".")[0].lower() in _DEVICES:
            raise BadManifest(f"The path {path[:80]!r} names a device on some systems.")
