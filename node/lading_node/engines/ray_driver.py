"""The process that holds a node's place in a Ray cluster: run with -m, the cluster's address and our process id.

Moves bytes between the node (frames on stdin and stdout) and one placement actor on each machine; decides nothing. The
only file that imports Ray: it hangs and dies here, not in the node, and what it prints stays here.
"""

import asyncio
import contextlib
import os
import subprocess
import sys
from typing import Any

import msgspec

from lading_node.engines.pool import Found, Heard, Lost, News
from lading_node.engines.ray_actor import Placement
from lading_protocol.framing import Frames, frame

NAMESPACE = "lading"
OLDEST = (2, 60)
_LOOK_S = 2.0
_AGAIN_S = 0.2
_PROBE_S = 20.0
_ACTORS_AT_ONCE = 64


class Say(msgspec.Struct, frozen=True, tag="say"):
    machine: str
    data: bytes


class Joined(msgspec.Struct, frozen=True, tag="joined"):
    version: str


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """The cluster is not used: why, and what to do."""

    message: str
    hint: str


ToNode = Joined | Refused | News
decoder: msgspec.msgpack.Decoder[ToNode] = msgspec.msgpack.Decoder(ToNode)
_says: msgspec.msgpack.Decoder[Say] = msgspec.msgpack.Decoder(Say)
_encoder = msgspec.msgpack.Encoder()


class NotUsed(Exception):
    """`args` are those of Refused."""


def main() -> int:
    from lading_node.engines.confine import die_with, take_stdio

    address, parent = sys.argv[1], int(sys.argv[2])
    die_with(parent)
    reading, writing = take_stdio()
    try:
        version = _join(address)
    except NotUsed as why:
        _write(writing, Refused(*why.args))
        return 1
    _write(writing, Joined(version))
    asyncio.run(_Driver(reading, writing).run())
    os._exit(0)  # leaving a cluster politely may take its health checks' time; our actors end with us anyhow


def _write(writing: int, message: ToNode) -> None:
    view = memoryview(frame(_encoder.encode(message)))
    while view:
        view = view[os.write(writing, view) :]


def _join(address: str) -> str:
    """Ray's version. Raises NotUsed for a cluster that is not safe, or not there."""
    try:
        import ray
    except ImportError:
        raise NotUsed("Ray is not installed.", "Run: pip install 'lading[ray]'") from None
    version: str = ray.__version__
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST:
        raise NotUsed(f"Ray {version} is too old: a cluster is closed to strangers from 2.60 on.", "Update Ray.")
    if os.environ.get("RAY_AUTH_MODE", "") != "token":
        raise NotUsed(
            "Ray's authentication is not on: whoever reaches the cluster could run anything on it.",
            "Set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH here and on every machine of the cluster.",
        )
    if _lets_strangers_in(address):
        raise NotUsed(
            f"The Ray cluster at {address} lets in whoever asks, without a token.",
            "Start all its machines with RAY_AUTH_MODE=token.",
        )
    try:
        ray.init(address=address, namespace=NAMESPACE, log_to_driver=False, configure_logging=False)
    except Exception as error:
        words = " ".join(str(error).split())[:200]
        raise NotUsed(f"The Ray cluster at {address} cannot be joined ({words}).", _HINT) from None
    return version


_HINT = "Is it up, is this machine one of it, and is RAY_AUTH_TOKEN_PATH the same token?"
_STRANGER = "import ray, sys; ray.init(address=sys.argv[1], log_to_driver=False, configure_logging=False); print('in')"


def _lets_strangers_in(address: str) -> bool:
    """Try it as one without a token: what a cluster says of its settings is worth less than that."""
    keep = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    command = [sys.executable, "-I", "-c", _STRANGER, address]
    try:
        done = subprocess.run(
            command,
            env={**keep, "RAY_AUTH_MODE": "disabled", "RAY_NUM_REDIS_GET_RETRIES": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PROBE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    return done.stdout.strip() == b"in"


class _Driver:
    """One task a machine that listens, one that speaks; one that looks for machines that come."""

    def __init__(self, reading: int, writing: int) -> None:
        self._reading = reading
        self._writing = writing
        self._machines: dict[str, asyncio.Queue[bytes]] = {}
        self._group: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Until the node closes our stdin."""
        looking = asyncio.ensure_future(self._look())
        reader = asyncio.StreamReader(limit=1 << 22)
        pipe = os.fdopen(self._reading, "rb", buffering=0)
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
        frames = Frames()
        while data := await reader.read(1 << 18):
            for payload in frames.feed(data):
                said = _says.decode(payload)
                if (queue := self._machines.get(said.machine)) is not None:
                    queue.put_nowait(said.data)
        looking.cancel()

    async def _look(self) -> None:
        import ray

        tasks: dict[str, asyncio.Task[None]] = {}
        while True:
            with contextlib.suppress(Exception):  # the cluster's head may be away; machines are heard without it
                for node in await asyncio.to_thread(ray.nodes):
                    name = node["NodeID"]
                    if node["Alive"] and (name not in tasks or tasks[name].done()):
                        tasks[name] = asyncio.ensure_future(self._serve(name, node["Resources"]))
            await asyncio.sleep(_LOOK_S)

    async def _serve(self, node: str, resources: dict[str, float]) -> None:
        """One actor's life, restarts included."""
        name = node[:12]
        actor = _actor(node, resources)
        turn, up, speaking = 0, False, None
        try:
            while True:
                turn += 1
                try:
                    if not up:
                        await actor.pid.remote()
                        up = True
                        self._machines[name] = asyncio.Queue()
                        speaking = asyncio.ensure_future(_speak(actor, self._machines[name]))
                        self._tell(Found(name, resources))
                    self._tell(Heard(name, await actor.hear.remote(turn)))
                except Exception as error:
                    if up and speaking is not None:
                        speaking.cancel()
                        self._tell(Lost(name, f"Its program is gone ({type(error).__name__})."))
                    up = False
                    if _is_final(error):
                        return
                    await asyncio.sleep(_AGAIN_S)
        finally:
            self._machines.pop(name, None)

    def _tell(self, news: News) -> None:
        _write(self._writing, news)


def _actor(node: str, resources: dict[str, float]) -> Any:
    """On exactly this machine; it holds the cards that the operator declared, so that no other job is given them."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    cards = {name: amount for name, amount in resources.items() if name.startswith("gpu:")}
    return (
        ray.remote(Placement)
        .options(
            num_cpus=0,
            resources=cards,
            max_restarts=-1,
            max_task_retries=0,
            max_concurrency=_ACTORS_AT_ONCE,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
        )
        .remote()
    )


async def _speak(actor: Any, queue: "asyncio.Queue[bytes]") -> None:
    """One batch at a time: an actor that answers many calls at once keeps no order among them."""
    while True:
        batch = [await queue.get()]
        while not queue.empty() and sum(map(len, batch)) < 1 << 20:
            batch.append(queue.get_nowait())
        with contextlib.suppress(Exception):  # `hear` meets the same and tells
            await actor.say.remote(b"".join(batch))


def _is_final(error: Exception) -> bool:
    """Whether this actor will never be again: its machine has left the cluster."""
    from ray import exceptions

    return isinstance(error, exceptions.ActorDiedError | exceptions.ActorUnschedulableError)


if __name__ == "__main__":
    sys.exit(main())
