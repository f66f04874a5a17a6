"""The deployment record: where the five contracts are. Read by every program, written by `deploy`."""

import os
from pathlib import Path
from typing import Annotated, Any

import msgspec

from lading_contracts.coin import Coin
from lading_contracts.court import AuditCourt
from lading_contracts.errors import BadDeployment
from lading_contracts.port import Chain
from lading_contracts.registry import AgentRegistry
from lading_contracts.settlement import Settlement
from lading_contracts.staking import Staking
from lading_protocol.eip712 import Domain
from lading_protocol.ids import Address, address, to_hex

_ADDRESSES = ("coin", "registry", "settlement", "staking", "court")


class Deployment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`block` is the first block of interest: followers start there."""

    chain_id: Annotated[int, msgspec.Meta(ge=1)]
    block: Annotated[int, msgspec.Meta(ge=0)]
    coin: Address
    registry: Address
    settlement: Address
    staking: Address
    court: Address
    decimals: Annotated[int, msgspec.Meta(ge=0, le=36)] = 18
    symbol: Annotated[str, msgspec.Meta(min_length=1, max_length=16)] = "LADE"

    def names(self) -> dict[Address, str]:
        """The contract at each address, as the follower wants it."""
        return {
            self.coin: Coin.NAME,
            self.registry: AgentRegistry.NAME,
            self.settlement: Settlement.NAME,
            self.staking: Staking.NAME,
            self.court: AuditCourt.NAME,
        }

    @property
    def settlement_domain(self) -> Domain:
        """Vouchers, locks, session consents and offers are signed for this."""
        return Domain(self.chain_id, self.settlement)

    @property
    def staking_domain(self) -> Domain:
        """Stake consents are signed for this."""
        return Domain(self.chain_id, self.staking)

    @property
    def court_domain(self) -> Domain:
        """Receipts are signed for this."""
        return Domain(self.chain_id, self.court)

    def encode(self) -> bytes:
        fields = msgspec.structs.asdict(self)
        shown = {name: to_hex(value) if isinstance(value, bytes) else value for name, value in fields.items()}
        return msgspec.json.format(msgspec.json.encode(shown), indent=2)

    def save(self, path: Path) -> None:
        """Replaces the file in one step, so that a reader never sees half of it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        draft.write_bytes(self.encode() + b"\n")
        draft.replace(path)


class Contracts:
    """The five contracts of one deployment on one chain."""

    def __init__(self, chain: Chain, deployment: Deployment) -> None:
        if chain.chain_id != deployment.chain_id:
            raise BadDeployment(
                f"The deployment record is for chain {deployment.chain_id}, the settings name chain {chain.chain_id}."
            )
        self.chain = chain
        self.deployment = deployment
        self.coin = Coin(chain, deployment.coin)
        self.registry = AgentRegistry(chain, deployment.registry)
        self.settlement = Settlement(chain, deployment.settlement)
        self.staking = Staking(chain, deployment.staking)
        self.court = AuditCourt(chain, deployment.court)

    async def check(self) -> None:
        """Raises BadDeployment when an address of the record holds no contract."""
        for where, name in self.deployment.names().items():
            if not await self.chain.code(where):
                raise BadDeployment(f"There is no {name} at {to_hex(where)} on chain {self.chain.chain_id}.")


def decode(document: bytes, origin: str = "The document") -> Deployment:
    """Raises BadDeployment, naming the field."""
    try:
        fields = msgspec.json.decode(document, type=dict[str, Any])
        for name in _ADDRESSES:
            if isinstance(fields.get(name), str):
                fields[name] = address(fields[name])
        return msgspec.convert(fields, Deployment)
    except (msgspec.MsgspecError, ValueError) as error:
        raise BadDeployment(f"{origin} is not a deployment record: {error}.") from error


def load(path: Path) -> Deployment:
    """Raises BadDeployment when the file is missing, unreadable or malformed."""
    try:
        document = path.read_bytes()
    except OSError as error:
        raise BadDeployment(f"The deployment record {path} cannot be read ({error.strerror}).") from error
    return decode(document, str(path))
