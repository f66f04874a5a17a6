"""What commands share: reading settings, the key, what was typed, and opening the chain. Closes what it opened."""

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from lading.cli.flags import Network
from lading.errors import BadSettings
from lading.settings import Settings, read
from lading_contracts import deployment as deployments
from lading_contracts.deployment import Contracts, Deployment
from lading_protocol.errors import BadKey
from lading_protocol.ids import Address, address
from lading_protocol.keys import PrivateKey
from lading_protocol.pricing import format_amount, parse_amount

PASSWORD = "LADING_PASSWORD"


class Desk(msgspec.Struct, frozen=True):
    """What a command works with: the contracts, their record, the caller's key and settings."""

    chain: Contracts
    record: Deployment
    me: PrivateKey
    settings: Settings

    def wei(self, amount: str) -> int:
        """Tokens as a person types them. Raises BadAmount."""
        return parse_amount(amount, self.record.decimals)

    def money(self, wei: int, as_json: bool = False) -> str:
        """Whole wei for programs, tokens with the symbol for people."""
        return str(wei) if as_json else f"{format_amount(wei, self.record.decimals)} {self.record.symbol}"


def settings(**flags: Any) -> Settings:
    return read(Settings, "client", flags)


def load_key(path: Path) -> PrivateKey:
    """A key file holds 64 hexadecimal digits, or a keystore whose password is in LADING_PASSWORD. Raises BadKey."""
    try:
        text = path.read_text().strip()
    except FileNotFoundError:
        raise BadKey(f"There is no key file {path}.", hint="Make one: lading wallet new.") from None
    except OSError as error:
        raise BadKey(f"The key file {path} cannot be read ({error.strerror}).", hint="Name another: --key.") from error
    except UnicodeDecodeError:
        raise BadKey(f"{path} is no key file.", hint="It holds 64 hexadecimal digits, or a keystore.") from None
    if text.startswith("{"):
        from lading_contracts import keystore

        return keystore.load(path, os.environ.get(PASSWORD, ""))
    return PrivateKey.from_hex(text)


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


def moment(seconds: int, as_json: bool = False) -> int | str:
    """Unix seconds for programs, UTC for people; empty for never."""
    if as_json or not seconds:
        return seconds if as_json else ""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))


def typed_address(text: str, what: str) -> Address:
    """An address that a person typed. Raises BadSettings."""
    try:
        return address(text)
    except ValueError as error:
        raise BadSettings(f"The {what} is no address: {error}.", hint="Write 0x and 40 hexadecimal digits.") from None


def typed_day(text: str) -> int:
    """The first second (UTC) of a day that a person typed. Raises BadSettings."""
    try:
        return int(datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).timestamp())
    except ValueError:
        raise BadSettings(f"{text!r} is no day.", hint="Write it as YYYY-MM-DD, such as 2027-01-31.") from None


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


@asynccontextmanager
async def desk(network: Network, **flags: Any) -> AsyncIterator[Desk]:
    """Settings, key and contracts in the order in which a person would want to hear that one is missing."""
    chosen = settings(**asdict(network), **flags)
    mine = load_key(chosen.key_path)
    async with contracts(chosen) as (chain, record):
        yield Desk(chain, record, mine, chosen)
