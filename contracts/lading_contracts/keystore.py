"""Keys at rest: Keystore V3 files, as every Ethereum wallet writes them, and a key in an environment variable.

Both give a lading_protocol PrivateKey. The key derivation takes about a second on purpose: call these from start-up or
from a thread, never on an event loop that serves. eth_keyfile is imported only here, when asked.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from lading_contracts.errors import BadKeystore
from lading_protocol.errors import BadKey
from lading_protocol.keys import PrivateKey

KEY_VARIABLE = "LADING_KEY"
_SCRYPT_ROUNDS = 2**17


def save(path: Path, key: PrivateKey, password: str, *, rounds: int = _SCRYPT_ROUNDS) -> None:
    """Encrypt to a new file that only its owner may read. Raises BadKeystore rather than replace a file."""
    from eth_keyfile.keyfile import create_keyfile_json

    if not password:
        raise BadKeystore("A key file needs a password.", hint="Give one; it cannot be empty.")
    document = create_keyfile_json(key.secret, password.encode(), kdf="scrypt", iterations=rounds)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise BadKeystore(f"{path} exists already.", hint="Choose another file, or move that one away.") from None
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(document, file)
        file.flush()
        os.fsync(file.fileno())


def load(path: Path, password: str) -> PrivateKey:
    """Raises BadKeystore: no file, not a key file, wrong password."""
    from eth_keyfile.keyfile import decode_keyfile_json

    try:
        document = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise BadKeystore(f"The key file {path} cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise BadKeystore(f"{path} is not a key file.") from error
    try:
        return PrivateKey(bytes(decode_keyfile_json(document, password.encode())))
    except (ValueError, KeyError, TypeError, AttributeError, NotImplementedError) as error:
        if "MAC mismatch" in str(error):
            raise BadKeystore(f"The password does not open {path}.") from error
        raise BadKeystore(f"{path} is not a Keystore V3 file.") from error


def from_environment(variable: str = KEY_VARIABLE, environment: Mapping[str, str] = os.environ) -> PrivateKey | None:
    """The key in the variable, or None when it is not set. Raises BadKeystore when it holds something else."""
    text = environment.get(variable)
    if not text:
        return None
    try:
        return PrivateKey.from_hex(text)
    except BadKey as error:
        raise BadKeystore(f"{variable} does not hold a private key.", hint=BadKey.hint) from error
