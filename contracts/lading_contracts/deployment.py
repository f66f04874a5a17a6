"""The deployment record: where the contracts are. Read by every program, written by `deploy`."""

import os
from pathlib import Path
from typing import Annotated, Any

import msgspec

from lading_contracts.coin import Coin
from lading_contracts.court import AuditCourt
from lading_contracts.errors import BadDeployment
from lading_contracts.leases import Leases
from lading_contracts.lineage import LineageCourt
from lading_contracts.offers import OfferBook
from lading_contracts.parameters import Parameters
from lading_contracts.port import Chain
from lading_contracts.promotions import PromotionAuctions
from lading_contracts.registry import AgentRegistry
from lading_contracts.settlement import Settlement
from lading_contracts.shares import ShareAuctions
from lading_contracts.staking import Staking
from lading_contracts.timelock import Timelock
from lading_protocol.eip712 import Domain
from lading_protocol.ids import Address, address, to_hex

_ADDRESSES = (
    "coin",
    "registry",
    "settlement",
    "timelock",
    "parameters",
    "staking",
    "court",
    "lineage_court",
    "offer_book",
    "share_auctions",
    "promotion_auctions",
    "leases",
)
_OLD = ("coin", "registry", "settlement", "staking", "court")


class Deployment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`block` is the first block of interest: followers start there."""

    chain_id: Annotated[int, msgspec.Meta(ge=1)]
    block: Annotated[int, msgspec.Meta(ge=0)]
    coin: Address
    registry: Address
    settlement: Address
    timelock: Address
    parameters: Address
    staking: Address
    court: Address
    lineage_court: Address
    offer_book: Address
    share_auctions: Address
    promotion_auctions: Address
    leases: Address
    decimals: Annotated[int, msgspec.Meta(ge=0, le=36)] = 18
    symbol: Annotated[str, msgspec.Meta(min_length=1, max_length=16)] = "LADE"

    def names(self) -> dict[Address, str]:
        """The contract at each address, as the follower wants it."""
        return {
            self.coin: Coin.NAME,
            self.registry: AgentRegistry.NAME,
            self.settlement: Settlement.NAME,
            self.timelock: Timelock.NAME,
            self.parameters: Parameters.NAME,
            self.staking: Staking.NAME,
            self.court: AuditCourt.NAME,
            self.lineage_court: LineageCourt.NAME,
            self.offer_book: OfferBook.NAME,
            self.share_auctions: ShareAuctions.NAME,
            self.promotion_auctions: PromotionAuctions.NAME,
            self.leases: Leases.NAME,
        }

    def watched(self) -> dict[Address, str]:
        """As `names`, without the coin: others may use the coin too, more than anybody here wants to read."""
        return {where: name for where, name in self.names().items() if where != self.coin}

    @property
    def registry_domain(self) -> Domain:
        """Consents to split tables are signed for this."""
        return Domain(self.chain_id, self.registry)

    @property
    def settlement_domain(self) -> Domain:
        """Vouchers, locks, session consents, session grants and offers are signed for this."""
        return Domain(self.chain_id, self.settlement)

    @property
    def staking_domain(self) -> Domain:
        """Stake consents are signed for this."""
        return Domain(self.chain_id, self.staking)

    @property
    def court_domain(self) -> Domain:
        """Receipts are signed for this."""
        return Domain(self.chain_id, self.court)

    @property
    def leases_domain(self) -> Domain:
        """Seconds that a lease was served are signed for this."""
        return Domain(self.chain_id, self.leases)

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
    """The contracts of one deployment on one chain."""

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
        self.timelock = Timelock(chain, deployment.timelock)
        self.parameters = Parameters(chain, deployment.parameters)
        self.staking = Staking(chain, deployment.staking)
        self.court = AuditCourt(chain, deployment.court)
        self.lineage_court = LineageCourt(chain, deployment.lineage_court)
        self.offer_book = OfferBook(chain, deployment.offer_book)
        self.share_auctions = ShareAuctions(chain, deployment.share_auctions)
        self.promotion_auctions = PromotionAuctions(chain, deployment.promotion_auctions)
        self.leases = Leases(chain, deployment.leases)

    async def check(self) -> None:
        """Raises BadDeployment when an address of the record holds no contract."""
        for where, name in self.deployment.names().items():
            if not await self.chain.code(where):
                raise BadDeployment(f"There is no {name} at {to_hex(where)} on chain {self.chain.chain_id}.")


def decode(document: bytes, origin: str = "The document") -> Deployment:
    """Raises BadDeployment, naming the field."""
    try:
        fields = msgspec.json.decode(document, type=dict[str, Any])
        _refuse_old(fields, origin)
        for name in _ADDRESSES:
            if isinstance(fields.get(name), str):
                fields[name] = address(fields[name])
        return msgspec.convert(fields, Deployment)
    except (msgspec.MsgspecError, ValueError) as error:
        raise BadDeployment(f"{origin} is not a deployment record: {error}.") from error


def _refuse_old(fields: dict[str, Any], origin: str) -> None:
    """Records of before the courts of lineage and the market name five contracts, of another kind than today's."""
    if set(fields) >= set(_OLD) and not set(fields) & set(_ADDRESSES) - set(_OLD):
        raise BadDeployment(
            f"{origin} is a deployment record of an older Lading: it knows no {_ADDRESSES[3]} and no auctions.",
            hint="Deploy again (lading chain deploy), or fetch the present record from whoever deployed.",
        )


def load(path: Path) -> Deployment:
    """Raises BadDeployment when the file is missing, unreadable or malformed."""
    try:
        document = path.read_bytes()
    except FileNotFoundError:
        raise BadDeployment(
            f"There is no deployment record {path}.",
            hint="Get it from whoever runs the network (--deployment names it), or deploy: lading chain deploy.",
        ) from None
    except OSError as error:
        raise BadDeployment(f"The deployment record {path} cannot be read ({error.strerror}).") from error
    return decode(document, str(path))
