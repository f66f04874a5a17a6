"""What the `lading chain` commands do, without their screen: plain arguments in, plain structs out."""

import time
from pathlib import Path
from typing import Protocol

import msgspec

from lading_contracts import anvil, events
from lading_contracts.deploy import Parameters, deploy, describe
from lading_contracts.deployment import Contracts, Deployment
from lading_contracts.embedded.server import EmbeddedChain, EmbeddedSettings
from lading_contracts.errors import ChainUnreachable
from lading_contracts.port import Signer
from lading_contracts.rpc import RpcSettings, open_chain
from lading_contracts.timelock import PROPOSER
from lading_contracts.verify import Finding, verify
from lading_protocol.ids import Address, Digest, Wei
from lading_protocol.keys import PrivateKey

FAUCET_COIN = Wei(10_000 * 10**18)
FAUCET_GAS = Wei(10 * 10**18)
_DEPLOYING_BLOCKS = 2_000


class LocalChain(Protocol):
    """A chain that this machine runs. `faucet` holds its currency."""

    url: str
    chain_id: int
    faucet: PrivateKey

    async def stop(self) -> None: ...


class Endpoint(msgspec.Struct, frozen=True):
    """Any EVM chain: where it is, and which one it must be."""

    url: str
    chain_id: int


class ContractStatus(msgspec.Struct, frozen=True):
    name: str
    address: Address
    present: bool


class ChainStatus(msgspec.Struct, frozen=True):
    """`age` is the newest block's age in seconds by this machine's clock.

    `governors` may propose changes of parameters, which take effect `timelock_delay` seconds later at the earliest.
    """

    reachable: bool
    chain_id: int
    block: int = 0
    age: float = 0.0
    contracts: tuple[ContractStatus, ...] = ()
    supply: Wei = Wei(0)
    deposited: Wei = Wei(0)
    staked: Wei = Wei(0)
    governors: tuple[Address, ...] = ()
    timelock_delay: int = 0
    problem: str = ""


class FaucetReport(msgspec.Struct, frozen=True):
    to: Address
    gas: Wei
    coins: Wei
    transactions: tuple[Digest, ...]


async def chain_up(settings: EmbeddedSettings, *, use_anvil: bool = False) -> LocalChain:
    """Start a local chain in this process (anvil: in a child). The caller stops it."""
    if not use_anvil:
        return await EmbeddedChain.start(settings)
    given = msgspec.structs.asdict(settings)
    return await anvil.Anvil.start(anvil.AnvilSettings(**given))


async def chain_deploy(
    endpoint: Endpoint, signer: Signer, record: Path, parameters: Parameters | None = None
) -> Deployment:
    """Deploy all contracts and write the record."""
    chain = open_chain(endpoint.url, endpoint.chain_id)
    try:
        deployed = await deploy(chain, signer, parameters)
    finally:
        await chain.close()
    deployed.save(record)
    return deployed


async def chain_status(endpoint: Endpoint, deployment: Deployment | None = None) -> ChainStatus:
    """An unreachable chain is an answer here, not an error. Raises WrongChain, BadDeployment."""
    chain = open_chain(endpoint.url, endpoint.chain_id, RpcSettings(attempts=1, timeout=5.0))
    try:
        head = await chain.block()
        number, stamp = (0, 0) if head is None else (head.number, head.timestamp)
        status = ChainStatus(True, endpoint.chain_id, number, max(0.0, time.time() - stamp))
        if deployment is None:
            return status
        contracts = Contracts(chain, deployment)
        rows = [
            ContractStatus(name, where, bool(await chain.code(where))) for where, name in deployment.names().items()
        ]
        if not all(row.present for row in rows):
            return msgspec.structs.replace(status, contracts=tuple(rows), problem="A contract is missing.")
        return msgspec.structs.replace(
            status,
            contracts=tuple(rows),
            supply=await contracts.coin.supply(),
            deposited=await contracts.coin.balance(deployment.settlement),
            staked=await contracts.coin.balance(deployment.staking),
            governors=await _governors(contracts),
            timelock_delay=await contracts.timelock.min_delay(),
        )
    except ChainUnreachable as error:
        return ChainStatus(False, endpoint.chain_id, problem=str(error))
    finally:
        await chain.close()


async def _governors(contracts: Contracts) -> tuple[Address, ...]:
    """Who was made proposer at deployment and still is; the timelock itself may name others later."""
    record = contracts.deployment
    head = await contracts.chain.block()
    last = min(record.block + _DEPLOYING_BLOCKS, record.block if head is None else head.number)
    found = []
    for log in await contracts.chain.logs((record.timelock,), record.block, last):
        entry = events.decode(contracts.timelock.NAME, log)
        if entry is not None and isinstance(entry.event, events.RoleGranted) and entry.event.role == PROPOSER:
            found.append(entry.event.account)
    return tuple([account for account in found if await contracts.timelock.may_propose(account)])


async def chain_verify(endpoint: Endpoint, deployment: Deployment) -> tuple[Finding, ...]:
    """Whether the contracts are this version's and wired as the record says. Raises ChainUnreachable, WrongChain."""
    chain = open_chain(endpoint.url, endpoint.chain_id)
    try:
        return await verify(chain, deployment)
    finally:
        await chain.close()


async def coin_decimals(endpoint: Endpoint, coin: Address) -> int:
    """Of an ERC-20 that exists. Raises BadDeployment when there is none."""
    chain = open_chain(endpoint.url, endpoint.chain_id)
    try:
        return (await describe(chain, coin)).decimals
    finally:
        await chain.close()


async def chain_faucet(
    endpoint: Endpoint,
    faucet: Signer,
    to: Address,
    deployment: Deployment | None = None,
    *,
    gas: int = FAUCET_GAS,
    coins: int = FAUCET_COIN,
) -> FaucetReport:
    """Send the chain's currency and, with a deployment, coins from a funded key. Zero of either sends none of it."""
    chain = open_chain(endpoint.url, endpoint.chain_id)
    sent: list[Digest] = []
    try:
        if gas:
            sent.append((await chain.send(faucet, to, b"", gas)).tx)
        if coins and deployment is not None:
            sent.append((await Contracts(chain, deployment).coin.transfer(faucet, to, coins)).tx)
    finally:
        await chain.close()
    return FaucetReport(to, Wei(gas), Wei(coins if deployment is not None else 0), tuple(sent))
