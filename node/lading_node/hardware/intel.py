"""Intel cards as the kernel lists them; torch, where it is installed with XPU, tells their names and memory."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lading_node.hardware import pci
from lading_node.hardware.devices import Device
from lading_node.hardware.errors import NotThere

# Graphics inside a processor has a window of 256 MiB and no memory of its own.
_OWN_MEMORY = 1 << 30


def probe() -> list[Device]:
    """Raises NotThere."""
    found = pci.cards(pci.INTEL)
    if not found:
        raise NotThere("no Intel card is on the bus")
    if find_spec("torch") is None:
        return [listed(index, card) for index, card in enumerate(found)]
    import torch

    return from_torch(torch) or [listed(index, card) for index, card in enumerate(found)]


def from_torch(torch: Any) -> list[Device]:
    """Empty where this torch knows no XPU."""
    xpu = getattr(torch, "xpu", None)
    if xpu is None or not xpu.is_available():
        return []
    found = []
    for index in range(xpu.device_count()):
        told = xpu.get_device_properties(index)
        free, total = xpu.mem_get_info(index) if hasattr(xpu, "mem_get_info") else (0, told.total_memory)
        found.append(
            Device(
                "intel",
                index,
                told.name,
                memory=told.total_memory,
                memory_used=total - free if free else 0,
                driver=str(getattr(told, "driver_version", "")),
            )
        )
    return found


def listed(index: int, card: pci.Card) -> Device:
    inside = card.bar < _OWN_MEMORY
    note = "It is part of the processor and has no memory of its own." if inside else "Its memory is the bus window's."
    return Device(
        "intel",
        index,
        f"{card.device:04x}",
        uuid=card.place,
        memory=0 if inside else card.bar,
        driver=card.driver,
        usable=not inside and bool(card.driver),
        notes=(note, "No engine here uses it until torch with XPU is installed."),
    )


def cards(system: Path) -> list[Device]:
    """What the kernel alone tells."""
    return [listed(index, card) for index, card in enumerate(pci.cards(pci.INTEL, system))]
