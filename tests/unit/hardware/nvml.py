"""A machine's NVML library as nvidia-ml-py shows it, in the shapes that real cards give; not a card in sight.

Only the functions that the node calls. What a card does not support raises, as the library does.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

NOT_SUPPORTED, LIBRARY_NOT_FOUND = 3, 12


class Memory(NamedTuple):
    total: int
    free: int
    used: int


class Process(NamedTuple):
    pid: int
    usedGpuMemory: int | None


class NvmlError(Exception):
    def __init__(self, value: int) -> None:
        super().__init__(value)
        self.value = value

    def __str__(self) -> str:
        return {3: "Not Supported", 15: "GPU is lost"}.get(self.value, f"error {self.value}")


H100 = {
    "Name": "NVIDIA H100 80GB HBM3",
    "UUID": "GPU-6e2ca8f2-0d25-4a7c-9a2b-1f6f7f6f2f11",
    "MemoryInfo": Memory(85520809984, 84971225088, 549584896),
    "CudaComputeCapability": (9, 0),
    "EccMode": [1, 1],
    "TotalEccErrors": 0,
    "PowerManagementLimit": 700000,
    "PowerManagementDefaultLimit": 700000,
    "CurrentClocksThrottleReasons": 0x1,
    "MigMode": [0, 0],
    "ComputeRunningProcesses": [],
    "GraphicsRunningProcesses": [],
}
# A gamer's card: older bindings give bytes, and it knows no MIG, no error correction.
RTX_4090 = {
    "Name": b"NVIDIA GeForce RTX 4090",
    "UUID": b"GPU-0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9",
    "MemoryInfo": Memory(25757220864, 23622320128, 2134900736),
    "CudaComputeCapability": (8, 9),
    "PowerManagementLimit": 270000,
    "PowerManagementDefaultLimit": 450000,
    "CurrentClocksThrottleReasons": 0x20 | 0x4,
    "ComputeRunningProcesses": [Process(4242, 1 << 30)],
    "GraphicsRunningProcesses": [Process(1200, None), Process(4242, None)],
}
A100_SLICED = {
    "Name": "NVIDIA A100-SXM4-40GB",
    "UUID": "GPU-11111111-2222-3333-4444-555555555555",
    "MemoryInfo": Memory(42949672960, 42000000000, 949672960),
    "CudaComputeCapability": (8, 0),
    "EccMode": [0, 1],
    "TotalEccErrors": 2,
    "PowerManagementLimit": 400000,
    "PowerManagementDefaultLimit": 400000,
    "MigMode": [1, 1],
    "MaxMigDeviceCount": 7,
}
SLICES = [
    {
        "Name": "NVIDIA A100-SXM4-40GB MIG 1g.5gb",
        "UUID": "MIG-a",
        "MemoryInfo": Memory(5100273664, 5000000000, 100273664),
    },
    {"Name": "NVIDIA A100-SXM4-40GB MIG 3g.20gb", "UUID": "MIG-b", "MemoryInfo": Memory(20937965568, 1, 20937965567)},
]


class FakeNvml:
    """`cards` are answers by function name; a missing one is not supported. `slices` belong to sliced cards."""

    NVMLError = NvmlError

    def __init__(
        self, *cards: Mapping[str, Any], slices: list[dict[str, Any]] | None = None, broken: int = 0, lost: int = -1
    ) -> None:
        self._cards = cards
        self._slices = slices or []
        self._broken = broken
        self._lost = lost
        self.open = 0

    def nvmlInit(self) -> None:
        if self._broken:
            raise NvmlError(self._broken)
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:
        return len(self._cards)

    def nvmlSystemGetDriverVersion(self) -> str:
        return "570.86.15"

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Mapping[str, Any]:
        if index == self._lost:
            raise NvmlError(15)
        return self._cards[index]

    def nvmlDeviceGetMigDeviceHandleByIndex(self, card: Mapping[str, Any], index: int) -> Mapping[str, Any]:
        if index >= len(self._slices):
            raise NvmlError(6)
        return self._slices[index]

    def __getattr__(self, name: str) -> Any:
        field = name.removeprefix("nvmlDeviceGet")

        def ask(handle: Mapping[str, Any], *given: Any) -> Any:
            if field not in handle:
                raise NvmlError(NOT_SUPPORTED)
            return handle[field]

        return ask
