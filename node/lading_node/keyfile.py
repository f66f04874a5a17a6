"""The operator's key on disk: made at the first run, readable by its owner only, plain hex or an encrypted keystore."""

import os
from pathlib import Path

from lading import keyfile
from lading_contracts import keystore
from lading_protocol.errors import BadKey
from lading_protocol.keys import PrivateKey

PASSWORD = "LADING_NODE_PASSWORD"


def load_key(path: Path, password: str | None = None) -> PrivateKey:
    """Raises BadKey, BadKeystore. `password` defaults to the environment variable LADING_NODE_PASSWORD."""
    chosen = os.environ.get(PASSWORD, "") if password is None else password
    return keyfile.load_key(path, chosen, made_by="lading node init")


def make_key(path: Path, password: str | None = None) -> PrivateKey:
    """A new key in a new file, mode 0600; encrypted when there is a password. Raises BadKey when it cannot be kept."""
    password = os.environ.get(PASSWORD, "") if password is None else password
    key = _random_key()
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if password:
            keystore.save(path, key, password)
            return key
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(key.secret.hex() + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise BadKey(
            f"The key file {path} cannot be written: {error.strerror}.", hint="Name another with --key."
        ) from error
    return key


def load_or_make(path: Path, password: str | None = None) -> tuple[PrivateKey, bool]:
    """The key, and whether it is new."""
    if path.exists():
        return load_key(path, password), False
    return make_key(path, password), True


def _random_key() -> PrivateKey:
    while True:
        try:
            return PrivateKey(os.urandom(32))
        except BadKey:  # one in 2^128
            continue
