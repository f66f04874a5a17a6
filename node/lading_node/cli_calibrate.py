"""`lading audit calibrate`: measures what honest hosts show, and signs a table of it. The measuring is calibrate's."""

import platform
from pathlib import Path

import msgspec
from rich.markup import escape

from lading import keyfile
from lading.calibrations import merged
from lading.cli import context
from lading.cli.agent_publish import own_store
from lading.cli.flags import Home, Json, Key, Switch
from lading.cli.output import emit, err, plain
from lading_node.calibrate import NotCalibrated, Pair, Plan, calibrate, pair
from lading_node.cli_trial import packed
from lading_node.core.calibrating import Measured
from lading_node.hardware.discover import discover
from lading_protocol.audit import EXACT_MARGIN
from lading_protocol.calibration import LEAST_JOBS, Calibration, sign, spec_hash, tolerance, write
from lading_protocol.ids import to_hex
from lading_protocol.manifest import Manifest


async def calibrate_command(
    package: str,
    /,
    *,
    date: str,
    host: str | None = None,
    against: str | None = None,
    jobs: int = 200,
    tokens: int = 128,
    seed: int = 1,
    exact: Switch = False,
    out: Path = Path("calibrations.json"),
    home: Home = None,
    key: Key = None,
    as_json: Json = False,
) -> int:
    """Run known-good jobs on this machine, and sign what an auditor sees of them: the limits of a numeric class.

    Parameters
    ----------
    package
        A project folder, or the 0x digest of an agent in your own store.
    date
        Today, as YYYY-MM-DD: it stands in the table.
    host
        The numeric class of the host; the agent's first when left out.
    against
        The numeric class of the auditor; the host's own when left out.
    jobs
        How many. Rare differences need many: 200 is little for anything but an exact class.
    tokens
        The most output tokens of a job.
    seed
        Another number asks other questions.
    exact
        Declare that host and auditor compute the same numbers; refused when they do not.
    out
        The file of tables that this one is added to; it takes the place of an older one for the same pair.
    """
    if jobs < LEAST_JOBS:
        raise NotCalibrated(f"{jobs} jobs say nothing.", hint=f"Run {LEAST_JOBS} at least.")
    chosen = context.settings(home=home, key=key)
    signer = keyfile.load_key(chosen.key_path)
    agent, manifest = packed(chosen, package, as_json)
    classes = pair(manifest, host or "", against or "")
    plan = Plan(jobs, tokens, seed, exact)

    def told(done: int) -> None:
        if not as_json and done % 20 < 4:
            err.print(f"{done} of {jobs} jobs", markup=False)

    found, words = await calibrate(own_store(chosen), agent, classes, plan, told)
    table = _table(manifest, classes, found, words)
    table = msgspec.structs.replace(table, date=date, seed=seed, exact=exact, hardware=await _hardware())
    if exact and found.margin.most > EXACT_MARGIN:
        why = f"A margin of {found.margin.most:.3g} logits was seen, and an exact class has at most {EXACT_MARGIN:g}."
        raise NotCalibrated(why, hint="Leave out --exact, or pin the engine and its kernels.")
    out.write_bytes(write(merged(out, sign(table, signer))))
    emit(_shown(table, out, to_hex(signer.address)), as_json)
    return 0


def _table(manifest: Manifest, classes: Pair, found: Measured, words: tuple[str, str]) -> Calibration:
    return Calibration(
        spec=to_hex(spec_hash(manifest)),
        agent=f"{manifest.name} {manifest.version}",
        host=classes.host.numeric,
        auditor=classes.auditor.numeric,
        host_engine=words[0],
        auditor_engine=words[1],
        hardware="",
        date="2000-01-01",
        seed=0,
        exact=False,
        **found._asdict(),
    )


async def _hardware() -> str:
    """The devices that this machine computes on, in words."""
    inventory = await discover()
    names = [device.name for device in inventory.devices if device.usable] or [platform.machine()]
    return plain(", ".join(dict.fromkeys(names)))[:300]


def _shown(table: Calibration, out: Path, signer: str) -> dict[str, object]:
    limits = tolerance(table)
    return {
        "agent": escape(plain(table.agent)),
        "spec": table.spec,
        "classes": f"{table.host} against {table.auditor}" + (", exact" if table.exact else ""),
        "jobs": table.jobs,
        "tokens": table.tokens,
        "tokens that differ": f"{100 * table.flips:.3g} %",
        "largest margin": f"{table.margin.most:.3g} logits, guilty beyond {limits.margin:.3g}",
        "largest chunk error": f"{table.chunk.most:.3g}, guilty beyond {limits.chunk:.3g}",
        "largest prompt error": f"{table.prompt.most:.3g}, guilty beyond {limits.prompt:.3g}",
        "signed by": signer,
        "kept in": str(out),
    }
