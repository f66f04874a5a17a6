"""The draw of a committee: the contract's shuffle of all operators of one moment, stopped when it is full."""

from collections.abc import Callable, Collection

from lading_protocol.ids import Address
from lading_protocol.keys import keccak256

_PROBES_PER_SEAT, _SPARE_PROBES = 8, 32


def pick(
    listed: tuple[Address, ...],
    seed: bytes,
    size: int,
    out: Collection[Address],
    owner_of: Callable[[Address], Address],
) -> tuple[Address, ...]:
    """Up to `size` of `listed`; nobody in `out` judges, and nothing that somebody in `out` owns."""
    moved: dict[int, int] = {}
    jurors: list[Address] = []
    for i in range(min(size * _PROBES_PER_SEAT + _SPARE_PROBES, len(listed))):
        if len(jurors) == size:
            break
        j = i + int.from_bytes(keccak256(seed + i.to_bytes(32, "big")), "big") % (len(listed) - i)
        place = moved.get(j, j)
        moved[j] = moved.get(i, i)
        operator = listed[place]
        if operator not in out and owner_of(operator) not in out:
            jurors.append(operator)
    return tuple(jurors)
