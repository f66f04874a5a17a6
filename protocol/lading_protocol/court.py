"""How far a dispute has come, as both courts count it."""

from enum import IntEnum


class Phase(IntEnum):
    """Void may be opened again; Closed is for ever. Asked: a contest of lineage that waits for its answer."""

    NONE = 0
    DRAWING = 1
    VOTING = 2
    RULED = 3
    CLOSED = 4
    VOID = 5
    ASKED = 6
