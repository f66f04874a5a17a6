"""What commands share: reading settings, the key, what was typed, and opening the chain. Closes what it opened."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import msgspec

from lading import keyfile
from lading.cli.flags import Network
from lading.errors import BadSettings
from lading.settings import Settings, read
from lading_contracts import deployment as deployments
from lading_contracts.deployment import Contracts, Deployment
from lading_protocol.ids import Address, address
from lading_protocol.keys import PrivateKey
from lading_protocol.pricing import format_amount, parse_amount


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


def on(network: Network, **flags: Any) -> Settings:
    """The settings of a command that asks the chain."""
    named = {"home": network.home, "key": network.key, "deployment": network.deployment, "chain_url": network.chain_url}
    return settings(**named, **flags)


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
    chosen = on(network, **flags)
    mine = keyfile.load_key(chosen.key_path)
    async with contracts(chosen) as (chain, record):
        yield Desk(chain, record, mine, chosen)
