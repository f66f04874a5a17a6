"""Deploys the five contracts in their order and returns the record. Knows no file and no network of programs."""

import msgspec

from lading_contracts import abi
from lading_contracts.court import CourtParams
from lading_contracts.deployment import Deployment
from lading_contracts.errors import BadDeployment
from lading_contracts.port import Chain, Signer, TxReceipt
from lading_contracts.transactions import created_address
from lading_protocol.ids import Address, Wei

_COIN = 10**18
_HOUR, _DAY = 3_600, 86_400


class Parameters(msgspec.Struct, frozen=True, kw_only=True):
    """What is fixed for ever at deployment. Delays in seconds, amounts in wei; `holder=None` means the signer.

    The defaults are for real money: the stake's cooldown outlasts the oldest receipt and the longest dispute.
    """

    name: str = "Lading"
    symbol: str = "LADE"
    supply: Wei = Wei(1_000_000_000 * _COIN)
    holder: Address | None = None
    exit_delay: int = _HOUR
    close_delay: int = _DAY
    min_stake: Wei = Wei(1_000 * _COIN)
    cooldown: int = 14 * _DAY
    court: CourtParams = CourtParams(
        bond=Wei(100 * _COIN),
        slash_bps=5_000,
        burn_bps=3_000,
        reward_bps=3_000,
        finder_bps=2_000,
        committee_size=3,
        quorum=2,
        draw_delay_blocks=8,
        commit_window=6 * _HOUR,
        reveal_window=6 * _HOUR,
        appeal_window=_DAY,
        receipt_max_age=7 * _DAY,
        jail_time=7 * _DAY,
    )

    @classmethod
    def devnet(cls, holder: Address | None = None) -> "Parameters":
        """Seconds instead of days, so that a demonstration sees every step."""
        usual = cls()
        court = msgspec.structs.replace(
            usual.court,
            draw_delay_blocks=2,
            commit_window=20,
            reveal_window=20,
            appeal_window=5,
            receipt_max_age=3_600,
            jail_time=120,
        )
        return msgspec.structs.replace(usual, holder=holder, exit_delay=5, close_delay=5, cooldown=3_600, court=court)


async def deploy(chain: Chain, signer: Signer, parameters: Parameters | None = None) -> Deployment:
    """Five transactions, one after the other; use the signer for nothing else meanwhile.

    Staking and court name each other for ever: staking is told the address that the next transaction will create.
    Raises BadDeployment when another transaction of the signer came between, and what the port's `send` raises.
    """
    wanted = parameters or Parameters()
    coin = await _create(
        chain, signer, "AICoin", wanted.name, wanted.symbol, wanted.supply, wanted.holder or signer.address
    )
    registry = await _create(chain, signer, "AgentRegistry")
    delays = wanted.exit_delay, wanted.close_delay
    settlement = await _create(chain, signer, "Settlement", _at(coin), _at(registry), *delays)
    expected = created_address(signer.address, settlement.nonce + 2)
    staking = await _create(chain, signer, "Staking", _at(coin), expected, wanted.min_stake, wanted.cooldown)
    if staking.nonce != settlement.nonce + 1:
        raise BadDeployment(
            "The deploying account sent another transaction meanwhile.", hint="Deploy again, with a key of its own."
        )
    params = msgspec.structs.astuple(wanted.court)
    court = await _create(chain, signer, "AuditCourt", _at(coin), _at(staking), _at(settlement), params)
    return Deployment(
        chain_id=chain.chain_id,
        block=coin.block,
        coin=_at(coin),
        registry=_at(registry),
        settlement=_at(settlement),
        staking=_at(staking),
        court=_at(court),
        decimals=18,
        symbol=wanted.symbol,
    )


async def _create(chain: Chain, signer: Signer, name: str, *arguments: object) -> TxReceipt:
    return await chain.send(signer, None, abi.load(name).creation(*arguments))


def _at(receipt: TxReceipt) -> Address:
    if receipt.created is None:
        raise BadDeployment("The chain did not say where the contract is.")
    return receipt.created
