"""What each vendor's file makes of a machine: recorded answers of libraries, and trees of the kernel's files."""

import string
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lading_node.hardware import amd, apple, cpu, intel, nvidia, pci
from lading_node.hardware.devices import GIB, Device, device_class, remarks, serving_class
from lading_node.hardware.errors import NotThere
from unit.hardware.nvml import A100_SLICED, H100, RTX_4090, SLICES, FakeNvml


def write(root: Path, files: dict[str, object]) -> Path:
    for name, value in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")
    return root


# NVIDIA


def test_a_datacentre_card_is_read_whole() -> None:
    nvml = FakeNvml(H100)
    (card,) = nvidia.read(nvml)
    assert nvml.open == 0
    assert device_class(card) == "nvidia-h100-80g"
    assert (card.uuid, card.driver, card.compute, card.ecc) == (H100["UUID"], "570.86.15", "9.0", "on")
    assert card.memory == 85520809984
    assert remarks(card) == []


def test_a_gamers_card_answers_less_and_its_limits_show() -> None:
    (card,) = nvidia.read(FakeNvml(RTX_4090))
    assert device_class(card) == "nvidia-rtx-4090-24g-cap60"
    assert (card.ecc, card.partition, card.tenants) == ("", "", 2)
    said = " ".join(remarks(card))
    for words in ("270 of 450 W (60%)", "too hot (driver)", "2 programs"):
        assert words in said
    assert "power brake" not in said


def test_a_sliced_card_is_its_slices() -> None:
    found = nvidia.read(FakeNvml(H100, A100_SLICED, slices=SLICES))
    assert [device_class(one) for one in found] == [
        "nvidia-h100-80g",
        "nvidia-a100-mig-1g.5gb-noecc",
        "nvidia-a100-mig-3g.20gb-noecc",
    ]
    assert [one.uuid for one in found[1:]] == ["MIG-a", "MIG-b"]
    assert [one.memory for one in found[1:]] == [5100273664, 20937965568]
    assert "2 memory errors were not corrected" in " ".join(remarks(found[1]))


def test_a_card_in_slices_without_one_is_listed_and_not_usable() -> None:
    (card,) = nvidia.read(FakeNvml(A100_SLICED))
    assert not card.usable
    assert "nvidia-smi mig -cgi" in " ".join(remarks(card))


def test_a_lost_card_does_not_hide_the_others() -> None:
    lost, good = nvidia.read(FakeNvml(H100, RTX_4090, lost=0))
    assert not lost.usable
    assert "GPU is lost" in lost.notes[0]
    assert good.usable


@pytest.mark.parametrize(
    ("code", "words"), [(12, "libnvidia-ml.so is missing"), (9, "not loaded"), (18, "restart"), (999, "NVML does not")]
)
def test_a_driver_that_is_not_there_is_named(code: int, words: str) -> None:
    with pytest.raises(NotThere, match=words):
        nvidia.read(FakeNvml(H100, broken=code))


def test_a_driver_without_a_card_is_named() -> None:
    nvml = FakeNvml()
    with pytest.raises(NotThere, match="no card"):
        nvidia.read(nvml)
    assert nvml.open == 0


# AMD


class FakeSmi:
    """amdsmi's answers for one MI300X, some of them missing."""

    class AmdSmiException(Exception):
        pass

    ANSWERS: ClassVar[dict[str, Any]] = {
        "gpu_asic_info": {
            "market_name": "AMD Instinct MI300X",
            "device_id": "0x74a1",
            "target_graphics_version": "gfx942",
        },
        "gpu_vram_usage": {"vram_total": 196592, "vram_used": 285},
        "power_cap_info": {"power_cap": 750000000, "default_power_cap": 750000000},
        "gpu_total_ecc_count": {"correctable_count": 3, "uncorrectable_count": 1, "deferred_count": 0},
        "gpu_device_uuid": "48ff74a1-0000-1000-80aa-2ddbbfc7f5d2",
        "gpu_driver_info": {"driver_name": "amdgpu", "driver_version": "6.10.5", "driver_date": "N/A"},
        "gpu_process_list": [{"name": "python", "pid": 77, "mem": 1}],
    }

    def __init__(self, partition: str = "SPX") -> None:
        self._answers = {**self.ANSWERS, "gpu_compute_partition": partition}

    def amdsmi_init(self) -> None: ...

    def amdsmi_shut_down(self) -> None: ...

    def amdsmi_get_processor_handles(self) -> list[int]:
        return [0]

    def __getattr__(self, name: str) -> Any:
        def ask(handle: int) -> Any:
            try:
                return self._answers[name.removeprefix("amdsmi_get_")]
            except KeyError:
                raise FakeSmi.AmdSmiException from None

        return ask


def test_an_amd_card_is_read_and_a_partition_changes_its_class() -> None:
    (card,) = amd.read(FakeSmi())
    assert device_class(card) == "amd-mi300x-192g"
    assert (card.compute, card.driver, card.power_limit, card.ecc_errors, card.tenants) == (
        "gfx942",
        "6.10.5",
        750,
        1,
        1,
    )
    (part,) = amd.read(FakeSmi("CPX"))
    assert device_class(part) == "amd-mi300x-cpx"


def test_without_its_library_the_kernel_tells_of_an_amd_card(tmp_path: Path) -> None:
    place = "bus/pci/devices/0000:03:00.0"
    write(
        tmp_path,
        {
            f"{place}/class": "0x030000",
            f"{place}/vendor": "0x1002",
            f"{place}/device": "0x744c",
            f"{place}/mem_info_vram_total": 25753026560,
            f"{place}/mem_info_vram_used": 1048576,
            f"{place}/unique_id": "1fc3e8a1d2b4c5d6",
            f"{place}/hwmon/hwmon4/power1_cap": 250000000,
            f"{place}/hwmon/hwmon4/power1_cap_default": 303000000,
            "bus/pci/devices/0000:04:00.0/class": "0x020000",
            "bus/pci/devices/0000:04:00.0/vendor": "0x1002",
            "bus/pci/devices/0000:05:00.0/class": "0x120000",
            "bus/pci/devices/0000:05:00.0/vendor": "0x10de",
        },
    )
    (card,) = amd.from_kernel(tmp_path, why="amdsmi is not installed")
    assert device_class(card) == "amd-744c-24g-cap80"
    assert card.uuid == "0x1fc3e8a1d2b4c5d6"
    assert any("No driver is bound" in note for note in card.notes)
    assert [one.place for one in pci.cards(pci.NVIDIA, tmp_path)] == ["0000:05:00.0"]


def test_no_amd_card_is_said_with_the_reason_of_the_library(tmp_path: Path) -> None:
    with pytest.raises(NotThere, match=r"libamd_smi.so is missing.*and no AMD card"):
        amd.from_kernel(tmp_path, why="amdsmi finds no library (libamd_smi.so is missing)")


# Intel and Apple


def test_intel_cards_are_told_from_graphics_inside_a_processor(tmp_path: Path) -> None:
    for place, size in (("0000:00:02.0", 0x1000_0000), ("0000:03:00.0", 0x4_0000_0000)):
        folder = f"bus/pci/devices/{place}"
        lines = f"0x0 0xffffff 0x140204\n0x4000000000 0x{0x4000000000 + size - 1:x} 0x14220c\nnot a window"
        files = {"class": "0x030000", "vendor": "0x8086", "device": "0x56a0", "resource": lines}
        write(tmp_path, {f"{folder}/{name}": value for name, value in files.items()})
    inside, card = intel.cards(tmp_path)
    assert (inside.memory, inside.usable) == (0, False)
    assert card.memory == 16 * GIB
    assert device_class(card) == "intel-56a0-16g"


def test_an_apple_chip_is_usable_only_through_torch() -> None:
    told = {"machdep.cpu.brand_string": "Apple M2 Ultra", "hw.memsize": str(192 * GIB), "kern.osproductversion": "15.3"}

    def ask(name: str) -> str:
        return told.get(name, "")

    assert device_class(apple.read(ask, True)) == "apple-m2-ultra-192g"
    assert [apple.read(ask, mps).usable for mps in (True, False, None)] == [True, False, False]
    with pytest.raises(NotThere, match="no Apple chip"):
        apple.read(lambda name: "Intel(R) Core(TM) i7", None)


# The processor

XEON = (
    "processor\t: 0\nmodel name\t: Intel(R) Xeon(R) Platinum 8480C\nflags\t\t: fpu avx2 avx512f avx512_bf16 amx_tile\n"
)
EPYC = "processor\t: 0\nmodel name\t: AMD EPYC 9655\nflags\t\t: fpu avx2 avx512f avx512_bf16 avx512_vnni\n"
GRAVITON = "processor\t: 0\nFeatures\t: fp asimd asimdhp asimddp sve bf16\n"
OLD = "processor\t: 0\nmodel name\t: Celeron\nflags\t\t: fpu sse2\n"
MEMORY = "MemTotal:       263837272 kB\nMemFree:  1 kB\nMemAvailable:   253837272 kB"


@pytest.mark.parametrize(
    ("text", "name"),
    [(XEON, "cpu-amx"), (EPYC, "cpu-avx512-bf16"), (GRAVITON, "cpu-sve-bf16"), (OLD, "cpu-scalar")],
)
def test_a_processor_is_classed_by_its_instructions(tmp_path: Path, text: str, name: str) -> None:
    write(tmp_path, {"proc/cpuinfo": text, "proc/meminfo": MEMORY})
    found = cpu.read(tmp_path, 64)
    assert (device_class(found), found.cores, found.memory) == (name, 64, 263837272 << 10)
    assert found.notes == ()


def test_a_version_2_group_grants_less_than_the_machine_has(tmp_path: Path) -> None:
    """The limit of a group above binds too, and the tightest counts."""
    group = "sys/fs/cgroup/system.slice"
    files = {
        "proc/cpuinfo": EPYC,
        "proc/meminfo": MEMORY,
        "proc/self/cgroup": "0::/system.slice/lading.service",
        f"{group}/cpu.max": "150000 100000",
        f"{group}/memory.max": 8 * GIB,
        f"{group}/lading.service/cpu.max": "max 100000",
        f"{group}/lading.service/memory.max": "max",
    }
    found = cpu.read(write(tmp_path, files), 64)
    assert (found.cores, found.memory) == (1.5, 8 * GIB)
    assert found.notes[0] == "The cgroup grants 1.5 of 64 processors."


def test_version_1_groups_in_a_container_that_sees_the_hosts_path(tmp_path: Path) -> None:
    files = {
        "proc/cpuinfo": EPYC,
        "proc/meminfo": MEMORY,
        "proc/self/cgroup": "5:memory:/docker/0123\n4:cpu,cpuacct:/docker/0123\n3:pids:/docker/0123\n0::/",
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": 200000,
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": 100000,
        "sys/fs/cgroup/memory/memory.limit_in_bytes": 4 * GIB,
        "sys/fs/cgroup/pids/memory.limit_in_bytes": 1,
    }
    found = cpu.read(write(tmp_path, files), 8)
    assert (found.cores, found.memory) == (2.0, 4 * GIB)
    files["sys/fs/cgroup/memory/memory.limit_in_bytes"] = 9223372036854771712
    files["sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us"] = -1
    found = cpu.read(write(tmp_path, files), 8)
    assert (found.cores, found.memory, found.notes) == (8.0, 263837272 << 10, ())


@given(
    cpuinfo=st.text(string.printable, max_size=200),
    group=st.text(string.printable, max_size=100),
    limit=st.text(string.printable, max_size=30),
)
def test_whatever_the_kernel_writes_the_processor_is_read(
    tmp_path_factory: pytest.TempPathFactory, cpuinfo: str, group: str, limit: str
) -> None:
    root = tmp_path_factory.mktemp("root")
    files = {"proc/cpuinfo": cpuinfo, "proc/meminfo": limit, "proc/self/cgroup": group}
    files |= {f"sys/fs/cgroup/{name}": limit for name in ("cpu.max", "memory.max", "cpu.cfs_quota_us")}
    found = cpu.read(write(root, files), 2)
    assert 0 <= found.cores <= 2
    assert device_class(found).startswith("cpu-")


# Classes

NAMES = {
    "NVIDIA A100 80GB PCIe": "nvidia-a100-pcie-80g",
    "NVIDIA GeForce RTX 4060 Laptop GPU": "nvidia-rtx-4060-laptop-80g",
    "Tesla T4": "nvidia-t4-80g",
    "NVIDIA RTX A6000": "nvidia-rtx-a6000-80g",
    "Navi 31 [Radeon RX 7900 XTX]": "nvidia-rx-7900-xtx-80g",
    "Intel(R) Arc(TM) A770 Graphics": "nvidia-arc-a770-80g",
    "": "nvidia-unknown-80g",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_class_is_the_telling_part_of_a_products_name(name: str) -> None:
    assert device_class(Device("nvidia", 0, name, memory=80 * GIB)) == NAMES[name]


@given(st.text(max_size=200), st.text(max_size=80), st.integers(0, 1 << 50), st.floats(0, 2000), st.floats(0, 2000))
def test_a_class_is_short_and_plain_whatever_a_driver_says(
    name: str, part: str, memory: int, limit: float, default: float
) -> None:
    made = Device("nvidia", 0, name, memory=memory, partition=part, power_limit=limit, power_default=default)
    words = device_class(made)
    assert 0 < len(words) <= 64
    assert set(words) <= set(string.ascii_lowercase + string.digits + "-.+")
    assert remarks(made) is not None


def test_an_offer_names_the_card_only_for_an_engine_that_uses_one() -> None:
    processor = Device("cpu", 0, "EPYC", features=("avx2",))
    small, large = (Device("nvidia", i, "NVIDIA L4", memory=size * GIB) for i, size in enumerate((8, 24)))
    lost = Device("nvidia", 2, "NVIDIA B200", memory=180 * GIB, usable=False)
    machine = (processor, small, large, lost)
    assert serving_class(machine, True) == "nvidia-l4-24g"
    assert serving_class(machine, False) == "cpu-avx2"
    assert serving_class((processor,), True) == "cpu-avx2"
    assert serving_class((), True) == ""
