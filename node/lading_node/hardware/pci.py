"""Display and compute cards as the kernel lists them on the PCI bus: what there is when no vendor's library tells."""

from pathlib import Path

import msgspec

SYSTEM = Path("/sys")
_DISPLAY, _ACCELERATOR = 0x03, 0x12
NVIDIA, AMD, INTEL = 0x10DE, 0x1002, 0x8086


class Card(msgspec.Struct, frozen=True):
    """`bar` is the largest memory window in bytes: with resizable windows, the size of the card's memory."""

    place: str
    vendor: int
    device: int
    driver: str
    bar: int
    folder: Path


def cards(vendor: int, system: Path = SYSTEM) -> list[Card]:
    """In the order of their addresses; empty where there is no PCI bus."""
    found = []
    for folder in sorted((system / "bus/pci/devices").glob("*")):
        kind, maker, model = (number(folder / name) for name in ("class", "vendor", "device"))
        if maker == vendor and kind >> 16 in (_DISPLAY, _ACCELERATOR):
            link = folder / "driver"
            driver = link.resolve().name if link.exists() else ""
            found.append(Card(folder.name, maker, model, driver, _largest_bar(folder), folder))
    return found


def number(path: Path) -> int:
    """A file that holds one number, decimal or 0x…; 0 where it cannot be read."""
    try:
        return int(path.read_text().strip(), 0)
    except (OSError, ValueError):
        return 0


def text(path: Path) -> str:
    """A file's one line; "" where it cannot be read."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _largest_bar(folder: Path) -> int:
    """Lines of `resource` are "start end flags"; flag 0x200 says memory, 0x2000 prefetchable."""
    sizes = [0]
    for line in text(folder / "resource").splitlines():
        try:
            start, end, flags = (int(part, 16) for part in line.split())
        except ValueError:
            continue
        if flags & 0x2200 == 0x2200 and end > start:
            sizes.append(end - start + 1)
    return max(sizes)
