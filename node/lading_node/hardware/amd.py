"""AMD cards through amdsmi where its library is, else through the kernel's files, which tell memory and power only."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lading_node.hardware import pci
from lading_node.hardware.devices import Device
from lading_node.hardware.errors import NotThere

MIB = 1 << 20


def probe() -> list[Device]:
    """Raises NotThere."""
    try:
        import amdsmi
    except ImportError:
        return from_kernel(why="amdsmi is not installed")
    except Exception:  # it raises KeyError, OSError and others when its library is missing
        return from_kernel(why="amdsmi finds no library (libamd_smi.so is missing)")
    try:
        return read(amdsmi)
    except amdsmi.AmdSmiException as error:
        return from_kernel(why=f"amdsmi does not answer ({error})")


def read(smi: Any) -> list[Device]:
    """`smi` is the module amdsmi. Raises NotThere, and AmdSmiException when the driver does not answer at all."""
    smi.amdsmi_init()
    try:
        handles = smi.amdsmi_get_processor_handles()
        if not handles:
            raise NotThere("the driver is there, but no card")
        return [_card(smi, index, handle) for index, handle in enumerate(handles)]
    finally:
        smi.amdsmi_shut_down()


def _card(smi: Any, index: int, handle: Any) -> Device:
    def told(ask: Callable[..., Any]) -> Any:
        try:
            return ask(handle)
        except smi.AmdSmiException:
            return None

    chip = told(smi.amdsmi_get_gpu_asic_info) or {}
    memory = told(smi.amdsmi_get_gpu_vram_usage) or {}  # MiB
    power = told(smi.amdsmi_get_power_cap_info) or {}  # microwatts
    errors = told(smi.amdsmi_get_gpu_total_ecc_count) or {}
    partition = told(smi.amdsmi_get_gpu_compute_partition) or ""
    processes = told(smi.amdsmi_get_gpu_process_list) or ()
    return Device(
        "amd",
        index,
        _known(chip.get("market_name")) or _known(chip.get("device_id")) or "unknown",
        uuid=told(smi.amdsmi_get_gpu_device_uuid) or "",
        memory=memory.get("vram_total", 0) * MIB,
        memory_used=memory.get("vram_used", 0) * MIB,
        driver=_known((told(smi.amdsmi_get_gpu_driver_info) or {}).get("driver_version")),
        compute=_known(chip.get("target_graphics_version")),
        partition="" if partition in ("SPX", "N/A", "") else partition.lower(),
        ecc_errors=errors.get("uncorrectable_count", 0),
        power_limit=power.get("power_cap", 0) / 1e6,
        power_default=power.get("default_power_cap", 0) / 1e6,
        tenants=len({one["pid"] for one in processes} - {os.getpid()}),
    )


def _known(value: Any) -> str:
    return "" if value in (None, "N/A") else str(value)


def from_kernel(system: Path = pci.SYSTEM, *, why: str) -> list[Device]:
    """`why` the library was no help. Raises NotThere."""
    found = [_listed(index, card, why) for index, card in enumerate(pci.cards(pci.AMD, system))]
    if not found:
        raise NotThere(f"{why}, and no AMD card is on the bus")
    return found


def _listed(index: int, card: pci.Card, why: str) -> Device:
    folder = card.folder
    memory = pci.number(folder / "mem_info_vram_total")
    sensors = next(iter(sorted((folder / "hwmon").glob("hwmon*"))), folder / "hwmon")
    notes = [f"Read from the kernel's files: {why}."]
    if not card.driver:
        notes.append("No driver is bound to it (amdgpu).")
    identity = pci.text(folder / "unique_id")
    return Device(
        "amd",
        index,
        pci.text(folder / "product_name") or f"{card.device:04x}",
        uuid=f"0x{identity}" if identity else card.place,
        memory=memory,
        memory_used=pci.number(folder / "mem_info_vram_used"),
        driver=card.driver,
        power_limit=pci.number(sensors / "power1_cap") / 1e6,
        power_default=pci.number(sensors / "power1_cap_default") / 1e6,
        usable=bool(memory),
        notes=tuple(notes),
    )
