"""A device as operators and payers see it: the struct, the short name of its class, and what lowers its worth. Pure.

A class is stable over restarts and the same for like devices everywhere; what changes from minute to minute (heat,
other programs) is a remark, not a class.
"""

import re
from collections.abc import Iterable
from typing import Literal

import msgspec

Vendor = Literal["cpu", "nvidia", "amd", "intel", "apple"]
VENDORS: tuple[Vendor, ...] = ("cpu", "nvidia", "amd", "intel", "apple")

GIB = 1 << 30
# Below this part of its default power limit a card is another card.
_CAPPED = 0.95
# Words of a product's name that the class has elsewhere or does not need.
_NOISE = re.compile(
    r"^(nvidia|amd|ati|intel|apple|corporation|geforce|radeon|tesla|quadro|instinct|graphics|gpu|tensor|core"
    r"|\d+gb|hbm\d?e?|gddr\d\w*|sxm\d*|oam)$"
)


class Device(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was read of one device. Sizes are in bytes, power in watts; 0 and "" say that nobody told.

    `partition` names a slice of a card (a MIG profile, a compute partition), "" is the whole one. `ecc_errors` counts
    uncorrected ones since the device was made. `tenants` counts processes of others on it now. `cores` are those
    granted, which a quota makes fractions. `usable` is false for what is listed but cannot be worked on.
    """

    vendor: Vendor
    index: int
    name: str
    uuid: str = ""
    memory: int = 0
    memory_used: int = 0
    driver: str = ""
    compute: str = ""
    cores: float = 0.0
    features: tuple[str, ...] = ()
    partition: str = ""
    ecc: Literal["", "on", "off"] = ""
    ecc_errors: int = 0
    power_limit: float = 0.0
    power_default: float = 0.0
    throttled: tuple[str, ...] = ()
    tenants: int = 0
    usable: bool = True
    notes: tuple[str, ...] = ()


class Inventory(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All devices that were found, and for each vendor without one why, in words."""

    devices: tuple[Device, ...] = ()
    troubles: dict[str, str] = {}


def device_class(device: Device) -> str:
    """`nvidia-h100-80g`, `nvidia-a100-mig-1g.5gb`, `nvidia-rtx-4090-24g-cap60`, `cpu-avx512-bf16`; <= 64 letters."""
    if device.vendor == "cpu":
        return f"cpu-{_instructions(device.features)}"
    parts = [device.vendor, *_model(device.name)]
    if device.partition:
        parts.append(_plain(f"{'mig-' if device.vendor == 'nvidia' else ''}{device.partition}"))
    elif device.memory:
        parts.append(f"{max(1, round(device.memory / GIB))}g")
    if device.ecc == "off":
        parts.append("noecc")
    if (part := power_part(device)) < _CAPPED:
        parts.append(f"cap{max(10, round(part * 10) * 10)}")
    return "-".join(parts)[:64].rstrip("-.")


def power_part(device: Device) -> float:
    """The power limit as a part of the card's default; 1 where either is unknown."""
    if device.power_limit <= 0 or device.power_default <= 0:
        return 1.0
    return device.power_limit / device.power_default


def remarks(device: Device) -> list[str]:
    """What makes this device worth less than its like, now or always; one sentence each."""
    said = [] if device.usable else ["It cannot be worked on."]
    if device.ecc == "off":
        said.append("Error correction is off: a flipped bit gives a wrong answer, and an audit finds it.")
    if device.ecc_errors:
        said.append(f"{device.ecc_errors} memory errors were not corrected in its life: have the card checked.")
    if (part := power_part(device)) < _CAPPED:
        said.append(f"Its power is limited to {device.power_limit:.0f} of {device.power_default:.0f} W ({part:.0%}).")
    if device.throttled:
        said.append(f"It runs slower now: {', '.join(device.throttled)}.")
    if device.tenants:
        programs = "program is" if device.tenants == 1 else "programs are"
        said.append(
            f"{device.tenants} {programs} on it now (a running node's engines count): one tenant at a time is safe."
        )
    return [*said, *device.notes]


def serving_class(devices: Iterable[Device], card: bool) -> str:
    """What an offer names: the largest card's class where the engine may use one, else the processor's, else ""."""
    found = [device for device in devices if device.usable]
    cards = [device for device in found if device.vendor != "cpu" and device.memory]
    if card and cards:
        return device_class(max(cards, key=lambda card: card.memory))
    return next((device_class(device) for device in found if device.vendor == "cpu"), "")


def _model(name: str) -> list[str]:
    """The telling words of a product's name, lower case."""
    # The bus's list of names has what a customer knows in brackets: "Navi 31 [Radeon RX 7900 XTX]".
    market = re.search(r"\[(.+?)\]", name)
    bare = re.sub(r"\((r|tm|c)\)|\bmig\b.*", " ", (market[1] if market else name).lower())
    words = [_plain(word) for word in re.split(r"[\s/_-]+", bare)]
    return [word for word in words if word and not _NOISE.match(word)][:5] or ["unknown"]


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9.+-]", "", text.lower())


def _instructions(features: tuple[str, ...]) -> str:
    """What decides how fast a model runs: the widest vectors, and the short types that they multiply."""
    wide = "avx512" if "avx512" in features else "avx2" if "avx2" in features else ""
    if "amx" in features:
        wide = "amx"
    elif not wide:
        wide = next((one for one in ("sve", "neon") if one in features), "scalar")
    short = "bf16" if "bf16" in features else "vnni" if "vnni" in features else ""
    return f"{wide}-{short}" if short and wide != "amx" else wide
