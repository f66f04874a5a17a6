"""The published calibration tables: those that come with this program, and files that an operator adds.

Owns reading and writing the files. Whose signature counts, and what follows from a table, is
lading_protocol.calibration's.
"""

from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path

import msgspec

from lading_protocol.calibration import BadCalibration, Calibration, SignedCalibration, read
from lading_protocol.ids import Address, address

# Who signed the tables that come with this program.
PUBLISHER = address("0x99213007fb42b80512311f44fd4a42b7a00d3d9f")
MAX_FILE = 1 << 24


def published(files: Iterable[Path] = (), trusted: Iterable[Address] = ()) -> tuple[Calibration, ...]:
    """Our own tables and those of `files`, which `trusted` signed. Raises BadCalibration, naming the file."""
    own = resources.files("lading_protocol").joinpath("calibrations.json").read_bytes()
    tables = read(own, [PUBLISHER])
    signers = [PUBLISHER, *trusted]
    for path in files:
        tables += read(_bytes(path), signers)
    return tables


def merged(path: Path, added: SignedCalibration) -> Sequence[SignedCalibration]:
    """The tables of a file, if it is there, and one more in the place of that for the same pair."""
    if not path.exists():
        return [added]
    try:
        kept = msgspec.json.decode(_bytes(path), type=list[SignedCalibration])
    except msgspec.DecodeError as error:
        raise BadCalibration(f"{path} holds no calibrations: {error}.", hint="Name another file with --out.") from error
    same = _pair(added.table)
    return [*(one for one in kept if _pair(one.table) != same), added]


def _pair(table: Calibration) -> tuple[str, str, str]:
    return table.spec, table.host, table.auditor


def _bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadCalibration(f"{path} cannot be read: {error.strerror}.", hint="Check the path.") from error
    if len(data) > MAX_FILE:
        raise BadCalibration(f"{path} has {len(data)} bytes, over the limit of {MAX_FILE}.")
    return data
