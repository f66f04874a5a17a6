"""Which machine of a pool gets an engine: the least loaded one where it fits. Pure; a refusal is a reason in words.

What a machine has is what it measured and its operator granted; what is taken is our own book-keeping.
"""

from collections.abc import Iterable, Sequence

import msgspec

GIB = 1 << 30


class Room(msgspec.Struct, frozen=True):
    """A machine's room for engines. `memory` is in bytes; `cards` are the uuids of whole cards or slices of them."""

    machine: str
    cores: float
    memory: int
    cards: tuple[str, ...] = ()


class Need(msgspec.Struct, frozen=True):
    """What one engine takes. A card has one tenant at a time."""

    cores: float = 1.0
    memory: int = 0
    card: bool = False


class Taken(msgspec.Struct, frozen=True):
    """What an engine that is placed holds; `card` is "" for none."""

    machine: str
    cores: float
    memory: int
    card: str = ""


def place(need: Need, rooms: Iterable[Room], taken: Sequence[Taken]) -> Taken | str:
    """What to take and where, or why it fits nowhere. Equal loads go by name, so that the choice is the same again."""
    best: tuple[float, int, str] | None = None
    found: Taken | None = None
    refusals = []
    for room in rooms:
        held = [one for one in taken if one.machine == room.machine]
        if reason := _lacks(need, room, held):
            refusals.append(f"{room.machine}: {reason}")
            continue
        rank = (_load(room, held), len(held), room.machine)
        if best is None or rank < best:
            free = _free_cards(room, held)
            best, found = rank, Taken(room.machine, need.cores, need.memory, free[0] if need.card else "")
    if found is not None:
        return found
    if not refusals:
        return "The pool has no machine right now."
    return f"No machine of the pool has room for it ({'; '.join(sorted(refusals))})."


def fits(need: Need, rooms: Sequence[Room], taken: Sequence[Taken], most: int = 4096) -> int:
    """How many engines of this need can be placed beside what is."""
    held, count = list(taken), 0
    while count < most and isinstance(one := place(need, rooms, held), Taken):
        held.append(one)
        count += 1
    return count


def _lacks(need: Need, room: Room, held: Sequence[Taken]) -> str:
    """Empty when it fits."""
    cores = room.cores - sum(one.cores for one in held)
    memory = room.memory - sum(one.memory for one in held)
    if need.cores > cores + 1e-9:
        return f"{max(0.0, cores):g} of {room.cores:g} cores are free"
    if need.memory > memory:
        return f"{max(0, memory) / GIB:.1f} of {room.memory / GIB:.1f} GiB are free"
    if need.card and not _free_cards(room, held):
        return f"none of {len(room.cards)} cards is free"
    return ""


def _free_cards(room: Room, held: Sequence[Taken]) -> list[str]:
    used = {one.card for one in held}
    return [card for card in room.cards if card not in used]


def _load(room: Room, held: Sequence[Taken]) -> float:
    """The scarcest thing decides: a machine whose memory is gone is full, however idle its cores are."""
    parts = [sum(one.cores for one in held) / max(room.cores, 1e-9)]
    parts.append(sum(one.memory for one in held) / max(room.memory, 1))
    if room.cards:
        parts.append(sum(bool(one.card) for one in held) / len(room.cards))
    return max(parts)
