"""The door to a container engine: images in, one hardened container out, and what the kernel measures of it.

Owns the Docker SDK, which blocks: nothing here may run in an event loop's thread. Knows no agent and no ABI.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import requests
from docker import APIClient
from docker.errors import DockerException, NotFound
from docker.types import DeviceRequest, LogConfig, Ulimit

from lading_node.engines.errors import EngineError, one_line

QUICK_S = 10
LOAD_S = 600
TMP = 16 << 20
INODES = 8192
PIDS = 64
FILES = 256
NOBODY = "65534:65534"
OWNER = "lading.node"
# From here on engines read CDI device names; before, a hook of the vendor runs as root on the host.
_CDI_API = (1, 44)


@dataclass(frozen=True, slots=True)
class Plan:
    """What one container gets. `memory` is in bytes, `runtime` "" is the engine's own; `owner` marks it for reaping."""

    name: str
    owner: str
    memory: int
    threads: int
    runtime: str = ""
    device: bool = False


@dataclass(frozen=True, slots=True)
class State:
    pid: int
    running: bool
    out_of_memory: bool
    status: int


class _Client(APIClient):  # type: ignore[misc]  # the SDK has no types
    """Asks the engine once who it is, when it looks for the API to speak: that takes the engine longer than a frame."""

    about: dict[str, Any]

    def _retrieve_server_version(self) -> str:
        self.about = self.version(api_version=False)
        return str(self.about["ApiVersion"])


class Dock:
    """Raises EngineError from every method."""

    def __init__(self, url: str) -> None:
        if not url.startswith("unix://"):
            why = f"The container engine {url!r} is not on this machine's own socket."
            raise EngineError("engine_error", why, hint="Name it as unix:///path/to/docker.sock.")
        with _translated("The container engine does not answer"):
            with socket.socket(socket.AF_UNIX) as link:  # the SDK leaves a socket behind that does not connect
                link.connect(url.removeprefix("unix://"))
            self._api = _Client(base_url=url, version="auto", timeout=QUICK_S)
        self.version = str(self._api.about.get("Version", "?"))
        self.machine = str(self._api.about.get("Arch", ""))

    def image(self, name: str) -> str:
        """The id of an image, "" when the engine does not hold it."""
        with _translated("The image cannot be looked up"):
            try:
                return str(self._api.inspect_image(name)["Id"])
            except NotFound:
                return ""

    def load(self, archive: Path, ids: frozenset[str], tag: str) -> str:
        """Take an image in and name it `tag`; returns its id, which is one of `ids`."""
        words = ""
        held = self._held(ids)
        if not held:
            with _translated("The image does not load"), archive.open("rb") as file:
                url = self._api._url("/images/load")
                with self._api.post(url, data=file, params={"quiet": 1}, timeout=LOAD_S) as answer:
                    self._api._raise_for_status(answer)
                    words = answer.text
            held = self._held(ids)
        if not held:
            why = f"The engine did not make the image that the archive holds: {one_line(words)}"
            raise EngineError("invalid_package", why)
        with _translated("The image cannot be named"):
            self._api.tag(held, tag)
        return held

    def _held(self, ids: frozenset[str]) -> str:
        return next((id for id in sorted(ids) if self.image(id) == id), "")

    def create(self, image: str, plan: Plan) -> None:
        """Make the container, then read back what the engine made of it: a limit that it dropped is an error."""
        host = self._host(plan)
        with _translated("The container cannot be made"):
            self._api.create_container(
                image=image,
                name=plan.name,
                hostname="agent",
                user=NOBODY,
                stdin_open=True,
                tty=False,
                environment=_environment(plan.threads),
                healthcheck={"test": ["NONE"]},
                labels={OWNER: plan.owner},
                host_config=host,
                network_disabled=True,
            )
            made = self._api.inspect_container(plan.name)
        if lost := sorted(_lost(host, made, image)):
            self.remove(plan.name)
            why = f"The container engine does not keep what it was told: {', '.join(lost)}."
            raise EngineError("engine_error", why, hint="Use Docker as root, or with cgroup delegation.")

    def _host(self, plan: Plan) -> dict[str, Any]:
        return dict(
            self._api.create_host_config(
                network_mode="none",
                read_only=True,
                cap_drop=["ALL"],
                security_opt=["no-new-privileges:true", f"seccomp={_profile()}"],
                pids_limit=PIDS,
                mem_limit=plan.memory,
                memswap_limit=plan.memory,
                nano_cpus=plan.threads * 10**9,
                oom_score_adj=1000,
                tmpfs={"/tmp": f"rw,noexec,nosuid,nodev,size={TMP},nr_inodes={INODES},uid=65534,gid=65534,mode=0700"},
                shm_size=TMP,
                ulimits=[Ulimit(name="nofile", soft=FILES, hard=FILES), Ulimit(name="core", soft=0, hard=0)],
                ipc_mode="private",
                log_config=LogConfig(type="none"),
                dns=["127.0.0.1"],
                dns_search=["."],
                runtime=plan.runtime or None,
                device_requests=[self._device()] if plan.device else None,
            )
        )

    def _device(self) -> DeviceRequest:
        api = tuple(int(part) for part in str(self._api.api_version).split("."))
        if api >= _CDI_API:
            return DeviceRequest(driver="cdi", device_ids=["nvidia.com/gpu=0"])
        return DeviceRequest(driver="nvidia", count=1, capabilities=[["gpu"]])

    def attach(self, name: str) -> socket.socket:
        """The connection that carries the container's three streams; non-blocking."""
        with _translated("The container cannot be reached"):
            raw = self._api.attach_socket(name, {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
            link = socket.socket(fileno=os.dup(raw.fileno()))
            raw._response.close()  # the SDK's own hold on the connection
            raw.close()
        link.setblocking(False)
        return link

    def start(self, name: str) -> None:
        with _translated("The container does not start"):
            self._api.start(name)

    def state(self, name: str) -> State:
        with _translated("The container cannot be looked at"):
            found = self._api.inspect_container(name)["State"]
        return State(found["Pid"], found["Running"], found["OOMKilled"], found["ExitCode"])

    def usage(self, name: str) -> dict[str, int]:
        """Counters and limits as the kernel has them: cpu_ns, memory, memory_limit, pids_limit; 0 for none."""
        with _translated("The container cannot be measured"):
            found = self._api.stats(name, stream=False, one_shot=True)
        memory, pids = found.get("memory_stats") or {}, found.get("pids_stats") or {}
        return {
            "cpu_ns": found["cpu_stats"]["cpu_usage"].get("total_usage") or 0,
            "memory": memory.get("usage") or 0,
            "memory_limit": memory.get("limit") or 0,
            "pids_limit": pids.get("limit") or 0,
        }

    def remove(self, name: str) -> None:
        """Kill and forget, whatever it does. One that is not there is gone already."""
        with _translated("The container cannot be removed"):
            try:
                self._api.remove_container(name, force=True, v=True)
            except NotFound:
                return

    def left_over(self, owner: str) -> list[str]:
        with _translated("The containers cannot be listed"):
            found = self._api.containers(all=True, filters={"label": f"{OWNER}={owner}"})
        return [one["Id"] for one in found]

    def close(self) -> None:
        self._api.close()

    def about(self) -> dict[str, Any]:
        """What the engine says of itself: runtimes and the limits that its kernel keeps."""
        with _translated("The container engine does not answer"):
            return dict(self._api.info())


@contextmanager
def _translated(what: str) -> Iterator[None]:
    try:
        yield
    except (DockerException, requests.RequestException, OSError) as error:
        words = getattr(error, "explanation", None) or error
        raise EngineError("engine_error", f"{what}: {one_line(words, 300)}.") from error


def _profile() -> str:
    return (resources.files("lading_node.engines") / "seccomp.json").read_text()


def _environment(threads: int) -> list[str]:
    return [
        "HOME=/tmp",
        "TMPDIR=/tmp",
        f"OMP_NUM_THREADS={threads}",
        "ORT_DISABLE_TELEMETRY=1",
        "ORT_GENAI_TELEMETRY_DISABLED=1",
    ]


def _lost(asked: dict[str, Any], made: dict[str, Any], image: str) -> Iterator[str]:
    """The names of what was asked for and is not so."""
    host, config = made["HostConfig"], made["Config"]
    for key, value in asked.items():
        if key == "Ulimits":
            kept = {one["Name"]: (one["Soft"], one["Hard"]) for one in host.get(key) or ()}
            if any(kept.get(one["Name"]) != (one["Soft"], one["Hard"]) for one in value):
                yield key
        elif key != "DeviceRequests" and host.get(key) != value:
            yield key
    if host.get("Privileged") or host.get("Binds") or host.get("CapAdd") or host.get("Devices") or made.get("Mounts"):
        yield "Mounts"
    if made["Image"] != image:
        yield "Image"
    if config.get("Tty") or config.get("User") != NOBODY:
        yield "User"
    if not {"/proc/kcore", "/proc/keys"} <= set(host.get("MaskedPaths") or ()):
        yield "MaskedPaths"
