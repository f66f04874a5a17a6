"""Which tier of isolation an agent needs, which one it gets here, and what to say when that one is not to be had.

W: a wasm guest in a process as of P. P: a process that has confined itself. C: a hardened container. G: a container on
gVisor. Tiers count only when this machine's self-test passed them.
"""

from lading_node.engines.errors import EngineError
from lading_node.engines.port import EngineSpec, Kind, Tier

# In order of preference. Models are data, so the cheaper wall comes first; an image is a stranger's program.
_FITTING: dict[Kind, tuple[Tier, ...]] = {
    "memory": ("P",),
    "llm-onnx": ("P",),
    "torch": ("P",),
    "onnx": ("P",),
    "ray": ("P",),
    "wasm-core": ("W",),
    "wasm-component": ("W",),
    "oci": ("G", "C"),
}
_MODELS = frozenset({"memory", "llm-onnx", "torch", "onnx", "ray"})
_NEEDED = frozenset({"network", "files", "no-new-privileges", "syscalls"})
_WORDS: dict[Tier, str] = {
    "W": "a wasm guest in a confined process",
    "P": "a confined process",
    "C": "a hardened container",
    "G": "a container on gVisor",
}


def choose_tier(spec: EngineSpec, passed: tuple[Tier, ...] | None, *, required: bool = True) -> Tier:
    """The tier that the spec runs in. `passed` are the tiers of the self-test, None when there was none: then the
    preferred one. "" for an engine that the operator runs elsewhere, and for a model where the operator does not
    insist on a tier (`required`); what can be had of the limits holds there all the same. Raises EngineError.
    """
    fitting = _FITTING.get(spec.kind, ())
    if not fitting:
        return ""
    wanted = tuple(tier for tier in fitting if spec.tier in ("", tier))
    for tier in wanted:
        if passed is None or tier in passed:
            return tier
    if wanted and not required and spec.kind in _MODELS:
        return ""
    if not wanted:
        why = f"Agents of the kind {spec.kind} cannot run in tier {spec.tier}."
        raise EngineError("engine_error", why, hint=f"Ask for {_named(fitting)}.")
    raise EngineError(
        "engine_error",
        f"Agents of the kind {spec.kind} need tier {_named(wanted)}, which did not pass this machine's self-test.",
        hint="See what failed: lading node probe.",
    )


def tier_of(kind: Kind, confinement: tuple[str, ...]) -> Tier:
    """What the limits that a process reports make of it: "" when one is missing that its tier cannot do without."""
    fitting = _FITTING.get(kind, ())
    return fitting[0] if fitting and set(confinement) >= _NEEDED else ""


def _named(tiers: tuple[Tier, ...]) -> str:
    return " or ".join(f"{tier} ({_WORDS[tier]})" for tier in tiers)
