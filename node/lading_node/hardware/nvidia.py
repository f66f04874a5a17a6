"""NVIDIA cards through NVML (nvidia-ml-py). Consumer cards answer fewer questions: what is not told stays unknown."""

import os
import re
from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from lading_node.hardware import pci
from lading_node.hardware.devices import Device
from lading_node.hardware.errors import NotThere

# Bits of NVML's clock event reasons that say a card is held back, not that it is idle or was told so.
_HELD_BACK = {
    0x08: "hardware slowdown",
    0x20: "too hot (driver)",
    0x40: "too hot (hardware)",
    0x80: "power brake",
}
_UNCORRECTED, _FOR_LIFE = 1, 1
_WHY = {
    9: "the driver is not loaded",
    12: "no driver (libnvidia-ml.so is missing)",
    4: "this user may not ask the driver",
    18: "the driver's library and its kernel module are of different versions: restart the machine",
    15: "a card has fallen off the bus: restart the machine",
}


def probe() -> list[Device]:
    """Raises NotThere."""
    try:
        import pynvml
    except ImportError:
        there = f"{len(found)} cards are on the bus, but " if (found := pci.cards(pci.NVIDIA)) else ""
        raise NotThere(f"{there}nvidia-ml-py is not installed (pip install nvidia-ml-py)") from None
    return read(pynvml)


def read(nvml: Any) -> list[Device]:
    """All cards, or their MIG instances where a card is sliced. `nvml` is the module pynvml. Raises NotThere."""
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        raise NotThere(_WHY.get(error.value, f"NVML does not start: {error}")) from None
    try:
        if not (count := nvml.nvmlDeviceGetCount()):
            raise NotThere("the driver is there, but no card")
        driver = _told(nvml, nvml.nvmlSystemGetDriverVersion) or ""
        found: list[Device] = []
        for index in range(count):
            found += _card(nvml, index, _string(driver))
        return found
    finally:
        nvml.nvmlShutdown()


def _card(nvml: Any, index: int, driver: str) -> list[Device]:
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        name = _string(nvml.nvmlDeviceGetName(handle))
    except nvml.NVMLError as error:
        return [Device("nvidia", index, "unknown", usable=False, notes=(f"The driver does not tell of it: {error}.",))]
    whole = _whole(nvml, index, handle, name, driver)
    if not (_told(nvml, nvml.nvmlDeviceGetMigMode, handle) or [0])[0]:
        return [whole]
    slices = _slices(nvml, handle, whole)
    note = "It is in MIG mode without an instance: make one (nvidia-smi mig -cgi)."
    return slices or [replace(whole, usable=False, notes=(note,))]


def _whole(nvml: Any, index: int, handle: Any, name: str, driver: str) -> Device:
    memory = _told(nvml, nvml.nvmlDeviceGetMemoryInfo, handle)
    compute = _told(nvml, nvml.nvmlDeviceGetCudaComputeCapability, handle)
    ecc = _told(nvml, nvml.nvmlDeviceGetEccMode, handle)
    bits = _told(nvml, nvml.nvmlDeviceGetCurrentClocksThrottleReasons, handle) or 0
    return Device(
        "nvidia",
        index,
        name,
        uuid=_string(_told(nvml, nvml.nvmlDeviceGetUUID, handle) or ""),
        memory=memory.total if memory else 0,
        memory_used=memory.used if memory else 0,
        driver=driver,
        compute=f"{compute[0]}.{compute[1]}" if compute else "",
        ecc=("on" if ecc[0] else "off") if ecc else "",
        ecc_errors=_told(nvml, nvml.nvmlDeviceGetTotalEccErrors, handle, _UNCORRECTED, _FOR_LIFE) or 0,
        power_limit=(_told(nvml, nvml.nvmlDeviceGetPowerManagementLimit, handle) or 0) / 1000,
        power_default=(_told(nvml, nvml.nvmlDeviceGetPowerManagementDefaultLimit, handle) or 0) / 1000,
        throttled=tuple(words for bit, words in _HELD_BACK.items() if bits & bit),
        tenants=_tenants(nvml, handle),
    )


def _slices(nvml: Any, handle: Any, whole: Device) -> list[Device]:
    """A slice has its own uuid and memory; heat, power and error correction are the card's."""
    found = []
    for at in range(_told(nvml, nvml.nvmlDeviceGetMaxMigDeviceCount, handle) or 0):
        part = _told(nvml, nvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, at)
        if part is None:
            continue
        memory = _told(nvml, nvml.nvmlDeviceGetMemoryInfo, part)
        name = _string(_told(nvml, nvml.nvmlDeviceGetName, part) or "")
        profile = re.search(r"MIG\s+(\S+)", name)
        found.append(
            replace(
                whole,
                uuid=_string(_told(nvml, nvml.nvmlDeviceGetUUID, part) or ""),
                partition=profile[1] if profile else "slice",
                memory=memory.total if memory else 0,
                memory_used=memory.used if memory else 0,
                tenants=_tenants(nvml, part),
            )
        )
    return found


def _tenants(nvml: Any, handle: Any) -> int:
    """Processes that compute or draw on it, this one left out. In a container the driver names none of the others."""
    asked = (nvml.nvmlDeviceGetComputeRunningProcesses, nvml.nvmlDeviceGetGraphicsRunningProcesses)
    found = {process.pid for ask in asked for process in _told(nvml, ask, handle) or ()}
    return len(found - {os.getpid()})


def _told(nvml: Any, ask: Callable[..., Any], *given: Any) -> Any:
    """The answer, or None: "not supported" is usual."""
    try:
        return ask(*given)
    except nvml.NVMLError:
        return None


def _string(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
