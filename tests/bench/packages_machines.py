"""What this machine scores, and what it costs that an engine lives behind a pool, or behind Ray.

A call is one embedding by the toy model, whose own work is a few microseconds; the same engine as a local child is the
reference, measured in turn with the others, so that noise of the machine meets all.
"""

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.util import find_spec
from pathlib import Path

from integration.ray import cluster
from lading_node.engines.child import ChildEngine
from lading_node.engines.errors import EngineError
from lading_node.engines.local_pool import LocalPool
from lading_node.engines.pool import Cluster, Pool
from lading_node.engines.port import Embed, Embedded, Engine, EngineSpec
from lading_node.engines.ray_pool import RayPool
from lading_node.hardware.score import QUICK_SECONDS, score
from lading_protocol.messages import EmbedRequest

from . import ROOT
from .report import say

PORT = 28379
SPEC = EngineSpec("memory", context=256)
_APART = ("--user", "--map-root-user", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")


async def figures(seconds: float) -> None:
    made = await score(seconds)
    for figure in made.figures:
        name = figure.name.replace(" ", "_")
        note = f"best {figure.best:.3g}, spread x{figure.spread:.2f} on {', '.join(made.devices)}"
        say(f"machine_{name}", figure.median, figure.unit, n=figure.samples, note=note)
    say("machine_others", made.others * 100, "%", note="of the processors that other work took meanwhile")


async def call(engine: Engine, id: str) -> float:
    """Milliseconds."""
    began = time.perf_counter()
    answer = await engine.embed(Embed(id, EmbedRequest(("a",))))
    took = (time.perf_counter() - began) * 1e3
    assert isinstance(answer, Embedded), answer
    return took


@asynccontextmanager
async def placed(cluster: Cluster) -> AsyncIterator[Engine]:
    """Raises EngineError."""
    pool = Pool(cluster)
    await pool.open()
    try:
        if not await pool.machines(1, 30):
            raise EngineError("timeout", "No machine of the pool answered.")
        engine = pool.engine(SPEC)
        await engine.start()
        yield engine
    finally:
        await pool.close()


async def overhead(calls: int, folder: Path, env: dict[str, str]) -> None:
    async with AsyncExitStack() as stack:
        child = ChildEngine(SPEC, folder)
        await child.start()
        stack.push_async_callback(child.stop)
        engines: dict[str, Engine] = {"child": child}
        engines["pool"] = await stack.enter_async_context(placed(LocalPool(folder, {"a": {}})))
        engines["ray"] = await stack.enter_async_context(placed(RayPool(f"127.0.0.1:{PORT}", env)))
        took: dict[str, list[float]] = {name: [] for name in engines}
        for at in range(calls + 20):
            for name, engine in engines.items():
                took[name].append(await call(engine, f"{name}{at}"))
    p50 = {name: statistics.median(values[20:]) for name, values in took.items()}
    child_p50 = ("the same engine as a local child", p50["child"])
    say("call_pool_p50", p50["pool"], "ms", reference=child_p50, n=calls, note="the relay alone, in one process")
    p99 = statistics.quantiles(took["ray"][20:], n=100)[-1]
    note = f"two actor calls and two pipes; p99 {p99:.1f} ms"
    say("call_ray_p50", p50["ray"], "ms", reference=child_p50, n=calls, note=note)


def rows(quick: bool = False) -> None:
    """Prints its lines; for whoever puts the benchmarks of packages together."""
    asyncio.run(figures(QUICK_SECONDS - 1 if quick else 20.0))
    inside = [sys.executable, "-m", f"{__package__}.packages_machines", "--inside", *(["--quick"] if quick else [])]
    done = subprocess.run(["unshare", *_APART, *inside], cwd=ROOT, check=False) if find_spec("ray") else None
    if done is None or done.returncode:
        why = "Ray is not installed" if done is None else "no cluster can be had in namespaces of its own here"
        say("call_ray_p50", None, "ms", note=why)


def inside(quick: bool) -> None:
    """In namespaces of its own, where Ray's ports are nobody's, and its processes end with this one."""
    cluster.raise_loopback()
    with tempfile.TemporaryDirectory(prefix="lr-") as name:
        folder = Path(name)
        env = cluster.environment(folder)
        cluster.started(cluster.head(env, folder / "r", PORT))
        asyncio.run(overhead(200 if quick else 1000, folder, env))


if __name__ == "__main__":
    if "--inside" in sys.argv:
        inside("--quick" in sys.argv)
    else:
        rows("--quick" in sys.argv)
