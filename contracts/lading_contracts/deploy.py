"""Deploys the contracts in their order and returns the record. Knows no file and no network of programs.

The contracts name each other for ever, also those that do not exist yet: every address is planned from the deployer's
nonces first, and each creation is checked against the plan.
"""

from typing import Any

import msgspec

from lading_contracts import abi
from lading_contracts.coin import Coin
from lading_contracts.deployment import Deployment
from lading_contracts.errors import BadAbi, BadDeployment, ChainError, Reverted
from lading_contracts.parameters import CourtParams, MarketParams, astuple
from lading_contracts.port import Chain, Signer, TxReceipt
from lading_contracts.transactions import created_address
from lading_protocol.economics import SHIPPED
from lading_protocol.ids import ZERO_ADDRESS, Address, Wei, to_hex

_DECIMALS = 18
_COIN = 10**_DECIMALS
_HOUR, _DAY = 3_600, 86_400
# What decides whether cheating pays stands beside the conditions that it must meet.
_COURT = SHIPPED.court
_RETRY = (
    "Nothing rests in these contracts yet. Deploy again, simplest with a fresh key that does nothing else meanwhile."
)


class Parameters(msgspec.Struct, frozen=True, kw_only=True):
    """What a deployment starts with. Delays in seconds, amounts in wei of the coin. `court` and `market` may change
    later, within bounds, through the timelock; the rest is for ever.

    `holder=None` (of the supply) and `governor=None` (who proposes to the timelock) mean the signer. `coin` is an
    ERC-20 that exists already; then name, symbol, supply and holder mean nothing. `epoch_genesis=None` is the newest
    block's time, rounded down to a whole epoch. The defaults are for real money: the stake's cooldown outlasts the
    oldest receipt (7 days) and the longest dispute under any parameters (all rounds, windows twice as long: 9 days).
    """

    name: str = "Lading"
    symbol: str = "LADE"
    supply: Wei = Wei(1_000_000_000 * _COIN)
    holder: Address | None = None
    coin: Address | None = None
    exit_delay: int = _HOUR
    close_delay: int = _DAY
    governor: Address | None = None
    timelock_delay: int = 2 * _DAY
    min_stake: Wei = _COURT.min_stake
    cooldown: int = _COURT.cooldown
    epoch_genesis: int | None = None
    epoch_length: int = 7 * _DAY
    court: CourtParams = CourtParams(
        bond=_COURT.bond,
        slash_bps=_COURT.slash_bps,
        burn_bps=_COURT.burn_bps,
        reward_bps=_COURT.reward_bps,
        finder_bps=_COURT.finder_bps,
        committee_size=_COURT.committee_size,
        quorum=_COURT.quorum,
        draw_delay_blocks=8,
        commit_window=_COURT.commit_window,
        reveal_window=_COURT.reveal_window,
        appeal_window=_COURT.appeal_window,
        receipt_max_age=7 * _DAY,
        jail_time=_COURT.jail_time,
        answer_window=3 * _DAY,
        vote_deposit=_COURT.vote_deposit,
    )
    market: MarketParams = MarketParams(
        share_deposit=Wei(50 * _COIN),
        promotion_deposit=Wei(50 * _COIN),
        promotion_reserve=Wei(100 * _COIN),
        promotion_slots=3,
        lineage_bps=2_000,
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
            answer_window=20,
        )
        return msgspec.structs.replace(
            usual,
            holder=holder,
            exit_delay=5,
            close_delay=5,
            timelock_delay=60,
            cooldown=2 * _HOUR,
            epoch_length=60,
            court=court,
        )

    def in_units(self, decimals: int) -> "Parameters":
        """The same for a coin of `decimals` decimals, when these amounts are meant in units of 18 decimals."""
        court = msgspec.structs.replace(
            self.court,
            bond=_rescaled(self.court.bond, decimals),
            vote_deposit=_rescaled(self.court.vote_deposit, decimals),
        )
        market = msgspec.structs.replace(
            self.market,
            share_deposit=_rescaled(self.market.share_deposit, decimals),
            promotion_deposit=_rescaled(self.market.promotion_deposit, decimals),
            promotion_reserve=_rescaled(self.market.promotion_reserve, decimals),
        )
        stake = _rescaled(self.min_stake, decimals)
        return msgspec.structs.replace(self, min_stake=stake, court=court, market=market)


class Money(msgspec.Struct, frozen=True):
    """What the payment coin says of itself."""

    decimals: int
    symbol: str
    supply: Wei


async def deploy(chain: Chain, signer: Signer, parameters: Parameters | None = None) -> Deployment:
    """Twelve transactions, or eleven and an empty one when the coin exists; use the signer for nothing else meanwhile.

    Raises BadDeployment, which says how far it came and what to do.
    """
    wanted = parameters or Parameters()
    if wanted.coin is None:
        money = Money(_DECIMALS, wanted.symbol, wanted.supply)
        holder = wanted.holder or signer.address
        first = await _create(chain, signer, "AICoin", wanted.name, wanted.symbol, wanted.supply, holder)
    else:
        money = await describe(chain, wanted.coin)
        _check_units(wanted, money)
        # An empty transaction says which nonces come next.
        first = await chain.send(signer, signer.address, b"")
    plan = _Plan(signer.address, first.nonce, wanted.coin)
    if wanted.coin is None:
        plan.check("AICoin", first)
    work = await _creations(chain, plan, signer, wanted)
    done: list[str] = []
    receipts: list[TxReceipt] = []
    for name, arguments in work:
        try:
            receipts.append(await _create(chain, signer, name, *arguments))
        except ChainError as error:
            nonce = first.nonce + 1 + len(done)
            so_far = ", ".join(done) or "nothing else"
            raise BadDeployment(
                f"The deployment stopped at {name} (nonce {nonce}), after {so_far}: {error.message}", hint=_RETRY
            ) from error
        plan.check(name, receipts[-1])
        done.append(name)
    return Deployment(
        chain_id=chain.chain_id,
        block=first.block if wanted.coin is None else receipts[0].block,
        decimals=money.decimals,
        symbol=money.symbol,
        **plan.addresses(),
    )


async def describe(chain: Chain, coin: Address) -> Money:
    """Decimals, symbol and supply of an ERC-20 that exists. Raises BadDeployment when there is none."""
    held = Coin(chain, coin)
    try:
        return Money(await held.decimals(), await held.symbol(), await held.supply())
    except (BadAbi, Reverted) as error:
        raise BadDeployment(
            f"There is no ERC-20 coin with decimals and a symbol at {to_hex(coin)} on chain {chain.chain_id}.",
            hint="Check the address, or leave it out: then a coin is created.",
        ) from error


class _Plan:
    """Where each contract will be: the deployer's address and the nonces from `first` on."""

    FIELDS = (
        ("AICoin", "coin"),
        ("AgentRegistry", "registry"),
        ("Settlement", "settlement"),
        ("TimelockController", "timelock"),
        ("Parameters", "parameters"),
        ("Staking", "staking"),
        ("AuditCourt", "court"),
        ("LineageCourt", "lineage_court"),
        ("OfferBook", "offer_book"),
        ("ShareAuctions", "share_auctions"),
        ("PromotionAuctions", "promotion_auctions"),
        ("Leases", "leases"),
    )

    def __init__(self, deployer: Address, first: int, coin: Address | None) -> None:
        self._at = {name: created_address(deployer, first + step) for step, (name, _) in enumerate(self.FIELDS)}
        if coin is not None:
            self._at["AICoin"] = coin

    def __getitem__(self, name: str) -> Address:
        return self._at[name]

    def addresses(self) -> dict[str, Address]:
        return {field: self._at[name] for name, field in self.FIELDS}

    def check(self, name: str, receipt: TxReceipt) -> None:
        """Raises BadDeployment when the contract is not where the others will look for it."""
        if receipt.created != self._at[name]:
            found = "nowhere" if receipt.created is None else f"at {to_hex(receipt.created)}"
            raise BadDeployment(
                f"{name} came to be {found} instead of {to_hex(self._at[name])}: the deploying account sent another "
                f"transaction meanwhile (nonce {receipt.nonce}).",
                hint=_RETRY,
            )


async def _creations(
    chain: Chain, plan: _Plan, signer: Signer, wanted: Parameters
) -> list[tuple[str, tuple[Any, ...]]]:
    """All contracts but the coin, in order, with the arguments of their constructors."""
    coin, parameters = plan["AICoin"], plan["Parameters"]
    governor = wanted.governor or signer.address
    calendar = await _genesis(chain, wanted), wanted.epoch_length
    params = astuple(wanted.court), astuple(wanted.market)
    settlement, staking, registry = plan["Settlement"], plan["Staking"], plan["AgentRegistry"]
    return [
        ("AgentRegistry", (plan["ShareAuctions"], plan["LineageCourt"])),
        ("Settlement", (coin, registry, wanted.exit_delay, wanted.close_delay)),
        # Anyone may execute what has waited; nobody administers the timelock but itself.
        ("TimelockController", (wanted.timelock_delay, [governor], [ZERO_ADDRESS], ZERO_ADDRESS)),
        ("Parameters", (plan["TimelockController"], *params)),
        ("Staking", (coin, plan["AuditCourt"], wanted.min_stake, wanted.cooldown)),
        ("AuditCourt", (coin, staking, settlement, parameters)),
        ("LineageCourt", (coin, staking, registry, parameters)),
        ("OfferBook", (settlement,)),
        ("ShareAuctions", (coin, registry, parameters, *calendar)),
        ("PromotionAuctions", (coin, registry, parameters, *calendar)),
        ("Leases", (coin, staking, settlement)),
    ]


async def _genesis(chain: Chain, wanted: Parameters) -> int:
    if wanted.epoch_genesis is not None:
        return wanted.epoch_genesis
    head = await chain.block()
    now = 0 if head is None else head.timestamp
    return now - now % wanted.epoch_length


async def _create(chain: Chain, signer: Signer, name: str, *arguments: object) -> TxReceipt:
    return await chain.send(signer, None, abi.load(name).creation(*arguments))


def _check_units(wanted: Parameters, money: Money) -> None:
    if max(wanted.min_stake, wanted.court.bond) > money.supply:
        raise BadDeployment(
            f"There is less {money.symbol} in the world than one stake or bond.",
            hint=f"Name amounts in wei of the coin, which has {money.decimals} decimals: see Parameters.in_units.",
        )


def _rescaled(amount: Wei, decimals: int) -> Wei:
    return Wei(amount * 10**decimals // 10**_DECIMALS)
