"""The processor: its name, the instructions that models gain from, and what of it was really granted to us.

Affinity and the cgroup's quota decide how many cores, the cgroup's limit how much memory: a container that sees 64
cores may have been granted two.
"""

import os
import platform
from pathlib import Path

from lading_node.hardware.devices import Device
from lading_node.hardware.errors import NotThere

# A feature of ours, and the kernel's flags for it: x86's "flags", ARM's "Features".
_FLAGS = {
    "avx2": {"avx2"},
    "avx512": {"avx512f"},
    "vnni": {"avx512_vnni", "avx_vnni", "asimddp"},
    "bf16": {"avx512_bf16", "amx_bf16", "bf16"},
    "fp16": {"avx512_fp16", "asimdhp"},
    "amx": {"amx_tile"},
    "neon": {"asimd", "neon"},
    "sve": {"sve"},
}
# cgroup v1 says "no limit" with a number near 2^63.
_NO_LIMIT = 1 << 60


def probe() -> list[Device]:
    """Raises NotThere."""
    if platform.system() == "Darwin":
        return [_mac()]
    return [read(Path("/"), affinity())]


def affinity() -> int:
    """Processors that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def read(root: Path, allowed: int) -> Device:
    """`root` is where proc and sys are, `allowed` how many processors the affinity leaves. Raises NotThere."""
    about = _cpuinfo(root)
    flags = set((about.get("flags") or about.get("Features") or "").split())
    folders = _cgroups(root)
    quota = min((limit for folder in folders if (limit := _quota(folder))), default=float(allowed))
    cores = min(float(allowed), quota)
    total, used = _memory(root)
    limits = [limit for folder in folders if 0 < (limit := _memory_limit(folder)) < _NO_LIMIT]
    memory = min([total, *limits])
    notes = []
    if quota < allowed:
        notes.append(f"The cgroup grants {quota:g} of {allowed} processors.")
    if memory < total:
        notes.append(f"The cgroup grants {memory >> 20:,} of {total >> 20:,} MiB of memory.")
    name = about.get("model name") or about.get("Model") or about.get("Hardware") or platform.machine()
    return Device(
        "cpu",
        0,
        name,
        memory=memory,
        memory_used=used,
        compute=platform.machine(),
        cores=cores,
        features=tuple(sorted(ours for ours, theirs in _FLAGS.items() if theirs & flags)),
        notes=tuple(notes),
    )


def _cpuinfo(root: Path) -> dict[str, str]:
    """The first processor's lines. Raises NotThere."""
    try:
        text = (root / "proc/cpuinfo").read_text(errors="replace")
    except OSError as error:
        raise NotThere(f"/proc/cpuinfo cannot be read ({error.strerror})") from None
    found: dict[str, str] = {}
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if colon:
            found.setdefault(name.strip(), value.strip())
    return found


def _cgroups(root: Path) -> list[Path]:
    """The folders of this process's groups and of all above them, versions 1 and 2; a limit above binds below."""
    base, found = root / "sys/fs/cgroup", []
    for line in _lines(root / "proc/self/cgroup"):
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and not {"cpu", "memory"} & set(controllers.split(",")):
            continue
        # In a container the path may be the host's, while the mount begins at our own group: what exists counts.
        tops = [base, base / "unified"] if not controllers else [base / controllers, base / controllers.split(",")[0]]
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for top in dict.fromkeys(tops):
            found += [folder for n in range(len(parts) + 1) if (folder := top.joinpath(*parts[:n])).is_dir()]
    return found


def _quota(folder: Path) -> float:
    """Processors that the group may use, 0 for no limit."""
    if words := " ".join(_lines(folder / "cpu.max")).split():
        granted, period = words[0], words[1] if len(words) > 1 else "100000"
    else:
        granted, period = (next(iter(_lines(folder / f"cpu.cfs_{name}_us")), "") for name in ("quota", "period"))
    if not (granted.isdecimal() and period.isdecimal() and int(period)):
        return 0.0
    return int(granted) / int(period)


def _memory_limit(folder: Path) -> int:
    for name in ("memory.max", "memory.limit_in_bytes"):
        text = next(iter(_lines(folder / name)), "")
        if text.isdecimal():
            return int(text)
    return 0


def _memory(root: Path) -> tuple[int, int]:
    """All of the machine's memory, and what is in use of it."""
    found = {}
    for line in _lines(root / "proc/meminfo"):
        name, _, value = line.partition(":")
        size = value.split()
        if size and size[0].isdecimal():
            found[name] = int(size[0]) << 10
    total = found.get("MemTotal", 0)
    return total, max(0, total - found.get("MemAvailable", total))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []


def _mac() -> Device:
    from lading_node.hardware.apple import sysctl

    name, memory = sysctl("machdep.cpu.brand_string"), sysctl("hw.memsize")
    features = ("neon",) if platform.machine() == "arm64" else ("avx2",)
    size = int(memory) if memory.isdigit() else 0
    return Device("cpu", 0, name, memory=size, compute=platform.machine(), cores=affinity(), features=features)
