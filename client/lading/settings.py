"""Settings: one TOML file, over it the environment, over it the flags; read once into a frozen struct.

Every error names the setting, where its value came from, and what would be right.
"""

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from lading.errors import BadSettings

T = TypeVar("T", bound=msgspec.Struct)


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the consumer's and publisher's commands need. Paths may begin with `~`; empty means below `home`.

    `base_url` and `api_key` reach a coordinator's gateway; `also` are others, each as ADDRESS=KEY, that go on with an
    answer when it is gone; `peers` are direct-link endpoints for going peer to peer.
    `network_key` is the swarm key file of a private network.
    """

    home: str = "~/.lading"
    chain_url: str = "http://127.0.0.1:8545"
    deployment: str = ""
    key: str = ""
    base_url: str = "http://127.0.0.1:8600"
    api_key: str = ""
    also: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()
    network_key: str = ""

    @property
    def others(self) -> list[tuple[str, str]]:
        """The address and the API key of each other coordinator. Raises BadSettings."""
        found = [one.rpartition("=")[::2] for one in self.also]
        for at, (where, key) in enumerate(found):
            if not where or not key:
                raise BadSettings(f"The coordinator {self.also[at]!r} has no key.", hint="Write it as ADDRESS=KEY.")
        return found

    @property
    def home_path(self) -> Path:
        return Path(self.home).expanduser()

    @property
    def deployment_path(self) -> Path:
        return Path(self.deployment).expanduser() if self.deployment else self.home_path / "deployment.json"

    @property
    def key_path(self) -> Path:
        return Path(self.key).expanduser() if self.key else self.home_path / "key"


def read(
    kind: type[T],
    section: str,
    flags: Mapping[str, Any],
    file: Path | None = None,
    env: Mapping[str, str] = os.environ,
) -> T:
    """Build `kind` from the file's table `[section]`, LADING_<SECTION>_<FIELD> variables, and flags that are not None.

    Without `file`, LADING_SETTINGS names it, else ~/.lading/settings.toml is used when it exists. Raises BadSettings.
    """
    path = file or Path(env.get("LADING_SETTINGS", "~/.lading/settings.toml")).expanduser()
    values = _table(path, section, required=file is not None or "LADING_SETTINGS" in env)
    origin = dict.fromkeys(values, str(path))
    prefix = f"LADING_{section.upper()}_"
    for field in msgspec.structs.fields(kind):
        variable = prefix + field.name.upper()
        if variable in env:
            text = env[variable]
            values[field.name] = text.split(",") if "tuple" in str(field.type) else text
            origin[field.name] = variable
        if flags.get(field.name) is not None:
            values[field.name] = flags[field.name]
            origin[field.name] = f"--{field.name.replace('_', '-')}"
    try:
        return msgspec.convert(values, kind, strict=False)
    except msgspec.ValidationError as error:
        strange = sorted(set(values) - {field.name for field in msgspec.structs.fields(kind)})
        if strange:
            raise BadSettings(_unknown(strange[0], section, origin, kind)) from error
        raise BadSettings(_explain(str(error), section, origin)) from error


def _table(path: Path, section: str, *, required: bool) -> dict[str, Any]:
    try:
        tree = tomllib.loads(path.read_text())
    except FileNotFoundError:
        if required:
            raise BadSettings(f"The settings file {path} does not exist.") from None
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadSettings(f"The settings file {path} does not read: {error}.") from error
    table = tree.get(section, {})
    if not isinstance(table, dict):
        raise BadSettings(f"[{section}] in {path} is not a table.")
    return dict(table)


def _unknown(name: str, section: str, origin: Mapping[str, str], kind: type[msgspec.Struct]) -> str:
    near = difflib.get_close_matches(name, kind.__struct_fields__, 1)
    meant = f" Is {near[0]} meant?" if near else ""
    return f"There is no setting {section}.{name} (from {origin[name]}).{meant}"


def _explain(error: str, section: str, origin: Mapping[str, str]) -> str:
    """msgspec ends its messages with "- at `$.field...`"."""
    what, _, where = error.partition(" - at `$.")
    field = where.strip("`").split("[")[0].split(".")[0]
    source = f" (from {origin[field]})" if field in origin else ""
    name = f"{section}.{field}" if field else section
    return f"The setting {name}{source} is wrong: {what[:1].lower() + what[1:]}."
