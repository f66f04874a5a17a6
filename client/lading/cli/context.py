"""What commands share: reading settings, the key, and opening the chain. Closes what it opened."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from lading.errors import BadSettings
from lading.settings import Settings, read
from lading_contracts import deployment as deployments
from lading_contracts.deployment import Contracts, Deployment
from lading_protocol.errors import BadKey
from lading_protocol.keys import PrivateKey


def settings(**flags: Any) -> Settings:
    return read(Settings, "client", flags)


def load_key(path: Path) -> PrivateKey:
    """A key file holds 64 hexadecimal digits, or a keystore whose password is in LADING_PASSWORD. Raises BadKey."""
    try:
        text = path.read_text().strip()
    except OSError as error:
        raise BadKey(
            f"The key file {path} cannot be read ({error.strerror}).", hint="Make one: lading wallet new."
        ) from error
    if text.startswith("{"):
        from lading_contracts import keystore

        return keystore.load(path, os.environ.get("LADING_PASSWORD", ""))
    return PrivateKey.from_hex(text)


def write_key(path: Path, key: PrivateKey) -> None:
    """Readable by its owner only; never replaces one that is there. Raises BadSettings."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise BadSettings(f"{path} exists already.", hint="Choose another --key, or keep the one you have.") from None
    with os.fdopen(handle, "w") as file:
        file.write(key.secret.hex() + "\n")


@asynccontextmanager
async def contracts(chosen: Settings) -> AsyncIterator[tuple[Contracts, Deployment]]:
    """The contracts of the network in the settings."""
    from lading_contracts.rpc import open_chain

    record = deployments.load(chosen.deployment_path)
    chain = open_chain(chosen.chain_url, record.chain_id)
    try:
        yield Contracts(chain, record), record
    finally:
        await chain.close()
