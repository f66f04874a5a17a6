"""Key files: 64 hexadecimal digits, or a keystore with a password. Readable by their owner only."""

import os
from pathlib import Path

from lading.errors import BadSettings
from lading_protocol.errors import BadKey
from lading_protocol.keys import PrivateKey

PASSWORD = "LADING_PASSWORD"


def load_key(path: Path, password: str | None = None, made_by: str = "lading wallet new") -> PrivateKey:
    """A key file holds 64 hexadecimal digits, or a keystore; its password is LADING_PASSWORD where none is given.

    Raises BadKey, which names the command that makes one, and BadKeystore.
    """
    try:
        text = path.read_text().strip()
    except FileNotFoundError:
        raise BadKey(f"There is no key file {path}.", hint=f"Make one: {made_by}.") from None
    except OSError as error:
        raise BadKey(f"The key file {path} cannot be read ({error.strerror}).", hint="Name another: --key.") from error
    except UnicodeDecodeError:
        raise BadKey(f"{path} is no key file.", hint="It holds 64 hexadecimal digits, or a keystore.") from None
    if text.startswith("{"):
        from lading_contracts import keystore

        return keystore.load(path, os.environ.get(PASSWORD, "") if password is None else password)
    try:
        return PrivateKey.from_hex(text)
    except BadKey:
        raise BadKey(f"{path} is no key file.", hint="It holds 64 hexadecimal digits, or a keystore.") from None


def write_key(path: Path, key: PrivateKey, password: str = "") -> None:
    """Readable by its owner only, encrypted when there is a password; never replaces one that is there.

    Raises BadSettings, BadKeystore.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if password:
        from lading_contracts import keystore

        keystore.save(path, key, password)
        return
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise BadSettings(f"{path} exists already.", hint="Choose another --key, or keep the one you have.") from None
    with os.fdopen(handle, "w") as file:
        file.write(key.secret.hex() + "\n")
