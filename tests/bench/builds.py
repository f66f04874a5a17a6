"""Which build of Lading is measured: the compiled one where it is there as the sources are now, else plain Python."""

import os
from typing import NamedTuple

from compiling.build import FOLDER, fresh, tuned


class Build(NamedTuple):
    """`environment` is that of a process which runs it."""

    name: str
    environment: dict[str, str]


def builds() -> tuple[Build, Build | None]:
    """The one that is measured, and plain Python beside it where that is another one."""
    plain = Build("plain Python", dict(os.environ))
    if not fresh():
        return plain, None
    path = os.pathsep.join([str(FOLDER), *filter(None, [os.environ.get("PYTHONPATH")])])
    name = "compiled by mypyc, tuned" if tuned() else "compiled by mypyc"
    return Build(name, plain.environment | {"PYTHONPATH": path}), plain
