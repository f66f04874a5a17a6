"""Native code of wasm modules on this machine's disk: how it is compiled, what it depends on, and whether to trust it.

Loading native code is running it, so an entry counts only when its name holds a MAC under a secret that only our own
compile step reads and writes. Does not import the compiler: a node asks here whether something must be compiled.
"""

import hashlib
import hmac
import os
import platform
import stat
import tempfile
from functools import cache
from importlib.metadata import version
from pathlib import Path

from lading_node.engines.errors import EngineError

MAX_BYTES = {"wasm-core": 8 << 20, "wasm-component": 64 << 20}
MAX_NATIVE = 512 << 20
# What the compile step may use: seconds of processor, seconds in all, bytes.
CPU_S = {"wasm-core": 15, "wasm-component": 120}
WALL_S = {"wasm-core": 60.0, "wasm-component": 480.0}
MEMORY = {"wasm-core": 2 << 30, "wasm-component": 3 << 30}
# Whatever could give another result on another machine or at another time is off. Small reservations: under a limit of
# the address space four gigabytes an instance could not be had.
SETTINGS: dict[str, bool | int] = {
    "consume_fuel": True,
    "cranelift_nan_canonicalization": True,
    "wasm_relaxed_simd_deterministic": True,
    "wasm_threads": False,
    "shared_memory": False,
    "wasm_memory64": False,
    "wasm_multi_memory": False,
    "wasm_custom_page_sizes": False,
    "wasm_gc": False,
    "wasm_function_references": False,
    "gc_support": False,
    "wasm_exceptions": False,
    "wasm_stack_switching": False,
    "wasm_tail_call": False,
    "wasm_wide_arithmetic": False,
    "max_wasm_stack": 1 << 20,
    "memory_reservation": 64 << 20,
    "memory_reservation_for_growth": 64 << 20,
    "memory_guard_size": 1 << 20,
    "parallel_compilation": False,
}
_SECRET = "secret"


@cache
def release() -> str:
    """Of the compiler. Looks it up among all that is installed, which takes some milliseconds."""
    return version("wasmtime")


def key(kind: str, module: bytes) -> str:
    """Names all that native code depends on: the module (its digest), the compiler, its settings, this processor."""
    parts = [kind, module.hex(), release(), repr(SETTINGS), platform.system(), platform.machine(), _processor()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


@cache
def _processor() -> str:
    """The features that the compiler may use, as the kernel tells them."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1] for line in lines if line.startswith(("flags", "Features"))), "")


def find(folder: Path, key: str) -> Path | None:
    """The entry, if there is one that our own compile step wrote and nobody changed. Reads all of it."""
    try:
        secret = _private(folder / _SECRET)
    except OSError:
        return None
    for path in sorted(folder.glob(f"{key}-*.native")):
        try:
            mac = _mac(secret, key, _private(path))
        except OSError:
            continue
        if hmac.compare_digest(path.name, _name(key, mac)):
            return path
    return None


def put(folder: Path, key: str, code: bytes) -> Path:
    """Write an entry and drop what stood there under the same key. Raises OSError."""
    place = folder / _name(key, _mac(_secret(folder), key, code))
    handle, name = tempfile.mkstemp(dir=folder, prefix="new-")
    with os.fdopen(handle, "wb") as file:
        file.write(code)
    for old in folder.glob(f"{key}-*.native"):
        old.unlink(missing_ok=True)
    os.rename(name, place)
    return place


def check_size(kind: str, size: int) -> None:
    """Raises EngineError."""
    if size > MAX_BYTES[kind]:
        why = f"The module has {size:,} bytes; {MAX_BYTES[kind]:,} are allowed for {kind}."
        raise EngineError("invalid_package", why)


def _name(key: str, mac: str) -> str:
    return f"{key}-{mac}.native"


def _mac(secret: bytes, key: str, code: bytes) -> str:
    return hmac.new(secret, key.encode() + code, hashlib.sha256).hexdigest()


def _private(path: Path) -> bytes:
    """A file that is ours and that nobody else can write. Raises OSError."""
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
        held = os.fstat(file.fileno())
        if held.st_uid != os.geteuid() or held.st_mode & 0o022 or not stat.S_ISREG(held.st_mode):
            raise PermissionError(f"{path} is not private")
        return file.read()


def _secret(folder: Path) -> bytes:
    """The folder's own, made at the first use; two that make it at once agree on one."""
    place = folder / _SECRET
    try:
        return _private(place)
    except FileNotFoundError:
        handle, name = tempfile.mkstemp(dir=folder, prefix="new-")
        with os.fdopen(handle, "wb") as file:
            file.write(os.urandom(32))
        try:
            os.link(name, place)
        except FileExistsError:
            pass
        os.unlink(name)
        return _private(place)
