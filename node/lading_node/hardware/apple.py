"""The graphics half of an Apple chip: it shares the machine's memory, and torch reaches it as `mps`."""

import platform
import subprocess
from collections.abc import Callable
from importlib.util import find_spec

from lading_node.hardware.devices import Device
from lading_node.hardware.errors import NotThere


def probe() -> list[Device]:
    """Raises NotThere."""
    if platform.system() != "Darwin":
        raise NotThere("this machine is no Mac")
    return [read(sysctl, mps())]


def read(ask: Callable[[str], str], mps: bool | None) -> Device:
    """`ask` is sysctl; `mps` whether torch reaches the chip, None where torch is not installed. Raises NotThere."""
    name, memory = ask("machdep.cpu.brand_string"), ask("hw.memsize")
    if not name.startswith("Apple"):
        raise NotThere(f"{name or 'this processor'} is no Apple chip")
    note = {
        None: "No engine here uses it until torch is installed.",
        False: "This torch does not reach it (mps is not available).",
        True: "",
    }[mps]
    return Device(
        "apple",
        0,
        name,
        memory=int(memory) if memory.isdigit() else 0,
        driver=ask("kern.osproductversion"),
        cores=float(ask("hw.perflevel0.physicalcpu") or 0),
        usable=bool(mps),
        notes=(note,) if note else (),
    )


def sysctl(name: str) -> str:
    """ "" for what this system does not know."""
    done = subprocess.run(["/usr/sbin/sysctl", "-n", name], capture_output=True, text=True, timeout=5, check=False)
    return done.stdout.strip()


def mps() -> bool | None:
    if find_spec("torch") is None:
        return None
    import torch

    return bool(torch.backends.mps.is_available())
