"""Which network this is: a chain, the contracts on it, and the signing domains that follow from them."""

import json
from pathlib import Path
from typing import Any

import msgspec

from lading.errors import BadSettings
from lading_protocol.eip712 import Domain
from lading_protocol.ids import Address, address, to_hex

CONTRACTS = ("coin", "registry", "settlement", "staking", "court")


class Network(msgspec.Struct, frozen=True):
    """`block` is where the contracts were deployed, so that events are read from there on."""

    chain_id: int
    chain_url: str
    block: int
    coin: Address
    registry: Address
    settlement: Address
    staking: Address
    court: Address
    decimals: int = 18
    symbol: str = "LADE"

    @property
    def settlement_domain(self) -> Domain:
        return Domain(self.chain_id, self.settlement)

    @property
    def staking_domain(self) -> Domain:
        return Domain(self.chain_id, self.staking)

    @property
    def court_domain(self) -> Domain:
        return Domain(self.chain_id, self.court)

    def to_json(self) -> dict[str, Any]:
        tree: dict[str, Any] = msgspec.structs.asdict(self)
        return {name: to_hex(value) if name in CONTRACTS else value for name, value in tree.items()}


def parse_network(text: str | bytes, chain_url: str = "") -> Network:
    """Read a deployment record; `chain_url` overrides the one it may carry. Raises BadSettings."""
    try:
        tree = json.loads(text)
        if chain_url:
            tree["chain_url"] = chain_url
        for name in CONTRACTS:
            tree[name] = address(tree[name])
        known = {name: tree[name] for name in Network.__struct_fields__ if name in tree}
        network = Network(**known)
        if not isinstance(network.chain_id, int) or not isinstance(network.chain_url, str):
            raise TypeError("chain_id must be a number and chain_url text")
    except KeyError as error:
        raise BadSettings(f"The network description lacks {error}.") from error
    except (ValueError, TypeError) as error:
        raise BadSettings(f"The network description does not read: {error}.") from error
    return network


def load_network(path: Path, chain_url: str = "") -> Network:
    """Raises BadSettings."""
    try:
        return parse_network(path.read_bytes(), chain_url)
    except OSError as error:
        raise BadSettings(
            f"The network description {path} cannot be read: {error.strerror}.",
            hint="Give --network FILE, or fetch it with `lading network add URL`.",
        ) from error
