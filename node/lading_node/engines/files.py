"""The files of an agent, as an engine's process takes them: by role, and only with the manifest's digest."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from lading_node.engines.errors import EngineError
from lading_node.engines.port import AgentFile


def one(files: Sequence[AgentFile], role: str) -> AgentFile:
    """Raises EngineError unless there is exactly one file of that role."""
    found = [file for file in files if file.role == role]
    if len(found) != 1:
        raise EngineError("invalid_package", f"The agent has {len(found)} files of the role {role!r}; one is needed.")
    return found[0]


def name_of(file: AgentFile) -> str:
    return Path(file.path).name


def read(file: AgentFile) -> bytes:
    """The whole file, its digest checked. Raises EngineError."""
    try:
        data = Path(file.path).read_bytes()
    except OSError as error:
        raise unreadable(file, error) from error
    if hashlib.sha256(data).digest() != file.digest:
        raise altered(file)
    return data


def unreadable(file: AgentFile, error: OSError) -> EngineError:
    return EngineError("invalid_package", f"The agent's {file.role} cannot be read: {error.strerror}.")


def altered(file: AgentFile) -> EngineError:
    return EngineError("invalid_package", f"The agent's {file.role} is not the file that the manifest names.")
