"""`lading chain`: a local chain for development, and the contracts on it."""

import asyncio
import signal
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import App, Parameter
from cyclopts.validators import Number

from lading import keyfile
from lading.cli import context
from lading.cli.flags import ChainUrl, Json, Key, Record, Switch
from lading.cli.output import UNHEALTHY, emit, emit_rows, err
from lading.errors import BadSettings
from lading_contracts import deployment as deployments
from lading_contracts.deploy import Parameters
from lading_contracts.embedded.server import DEFAULT_CHAIN_ID
from lading_protocol.ids import Address, to_hex
from lading_protocol.pricing import format_amount, parse_amount

app = App(name="chain", help="A local chain for development, and the contracts on it.")
Port = Annotated[int, Parameter(validator=Number(gte=0, lte=65535))]
ChainId = Annotated[int, Parameter(validator=Number(gte=1, lt=2**63))]
Seconds = Annotated[float, Parameter(validator=Number(gte=0, lte=3600))]


@app.command
async def up(
    *,
    folder: Path = Path("~/.lading/chain"),
    port: Port = 8545,
    chain_id: ChainId = DEFAULT_CHAIN_ID,
    seed: str = "lading",
    block_time: Seconds = 2.0,
    anvil: Switch = False,
    as_json: Json = False,
) -> int:
    """Run a local chain until stopped; its state is kept in the folder.

    Parameters
    ----------
    folder
        Where the chain lives; it survives a kill.
    port
        For JSON-RPC, on this machine only; 0 takes any free one.
    chain_id
        Which chain it says it is.
    seed
        The faucet's key follows from it: anyone who knows the seed has the faucet.
    block_time
        Seconds between blocks when nothing happens.
    anvil
        Run Foundry's anvil instead of the embedded chain.
    """
    from lading_contracts.commands import chain_up
    from lading_contracts.embedded.server import EmbeddedSettings

    settings = EmbeddedSettings(
        folder=folder.expanduser(), port=port, chain_id=chain_id, block_time=block_time, seed=seed
    )
    chain = await chain_up(settings, use_anvil=anvil)
    try:
        emit({"url": chain.url, "chain_id": chain.chain_id, "faucet": to_hex(chain.faucet.address)}, as_json)
        stopped = asyncio.Event()
        for name in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(name, stopped.set)
        await stopped.wait()
    finally:
        await chain.stop()
    return 0


@app.command
async def deploy(
    *,
    chain_url: ChainUrl = None,
    chain_id: ChainId = DEFAULT_CHAIN_ID,
    deployment: str | None = None,
    key: Key = None,
    seed: str | None = None,
    coin: str | None = None,
    governor: str | None = None,
    devnet: Switch = False,
    replace: Switch = False,
    as_json: Json = False,
) -> int:
    """Deploy the contracts and write the deployment record that every program reads.

    The deploying account gets the whole supply of coins, unless --coin names one that exists. Use a key that does
    nothing else meanwhile.

    Parameters
    ----------
    chain_id
        Which chain it must be.
    deployment
        Where to write the record (default ~/.lading/deployment.json).
    seed
        Deploy with the faucet of a local chain of this seed instead.
    coin
        Take this ERC-20, by its 0x address, as the payment coin instead of a new one.
    governor
        Who may propose changes of parameters to the timelock (default the deploying account).
    devnet
        Delays of seconds instead of days.
    replace
        Write over a record that is there; the contracts that it names are then found nowhere else.
    """
    from lading_contracts.commands import Endpoint, chain_deploy, coin_decimals
    from lading_contracts.embedded.server import faucet_key

    chosen = context.settings(chain_url=chain_url, deployment=deployment, key=key)
    if chosen.deployment_path.exists() and not replace:
        raise BadSettings(
            f"{chosen.deployment_path} names contracts already.", hint="Keep them, give --deployment, or --replace it."
        )
    signer = faucet_key(seed) if seed is not None else keyfile.load_key(chosen.key_path)
    endpoint = Endpoint(chosen.chain_url, chain_id)
    parameters = Parameters.devnet() if devnet else Parameters()
    if coin is not None:
        given = context.typed_address(coin, "coin")
        parameters = msgspec.structs.replace(parameters.in_units(await coin_decimals(endpoint, given)), coin=given)
    if governor is not None:
        parameters = msgspec.structs.replace(parameters, governor=context.typed_address(governor, "governor"))
    record = await chain_deploy(endpoint, signer, chosen.deployment_path, parameters)
    names = {name: to_hex(where) for where, name in record.names().items()}
    emit({"record": str(chosen.deployment_path), "chain_id": record.chain_id} | names, as_json)
    return 0


@app.command
async def status(
    *,
    chain_url: ChainUrl = None,
    chain_id: ChainId | None = None,
    deployment: Record = None,
    as_json: Json = False,
) -> int:
    """Say whether the chain answers and the contracts are there. Exit code 3 when not.

    Parameters
    ----------
    chain_id
        Which chain it must be; the deployment record's when left out.
    """
    from lading_contracts.commands import Endpoint, chain_status

    chosen = context.settings(chain_url=chain_url, deployment=deployment)
    record = deployments.load(chosen.deployment_path) if chosen.deployment_path.exists() else None
    if record is None and chain_id is None:
        raise BadSettings("No deployment record says which chain to expect.", hint="Give --deployment, or --chain-id.")
    found = await chain_status(Endpoint(chosen.chain_url, chain_id or (record.chain_id if record else 0)), record)
    symbol, decimals = (record.symbol, record.decimals) if record else ("", 18)
    emit(
        {
            "reachable": found.reachable,
            "chain_id": found.chain_id,
            "block": found.block,
            "deposited": f"{format_amount(found.deposited, decimals)} {symbol}",
            "staked": f"{format_amount(found.staked, decimals)} {symbol}",
            "governor": [to_hex(one) for one in found.governors] if as_json else _listed(found.governors),
            "timelock": found.timelock_delay if as_json else f"{found.timelock_delay} s before a change takes effect",
        }
        | ({"contracts": {row.name: to_hex(row.address) for row in found.contracts}} if as_json else {}),
        as_json,
    )
    if not as_json and found.contracts:
        rows = [
            {"contract": row.name, "address": to_hex(row.address), "present": "yes" if row.present else "NO"}
            for row in found.contracts
        ]
        emit_rows(rows, False, "")
    if found.problem:
        err.print(found.problem, style="yellow", markup=False, soft_wrap=True)
    return 0 if found.reachable and not found.problem else UNHEALTHY


@app.command
async def verify(*, chain_url: ChainUrl = None, deployment: Record = None, as_json: Json = False) -> int:
    """Compare the contracts' code and wiring with this version's and the record. Exit code 3 when they differ.

    Trusts the chain's endpoint for the code and nobody else.
    """
    from lading_contracts.commands import Endpoint, chain_verify

    chosen = context.settings(chain_url=chain_url, deployment=deployment)
    record = deployments.load(chosen.deployment_path)
    found = await chain_verify(Endpoint(chosen.chain_url, record.chain_id), record)
    rows = [
        {"contract": one.contract, "address": to_hex(one.address), "finding": one.problem or one.note or "genuine"}
        for one in found
    ]
    emit_rows(rows, as_json, "")
    return UNHEALTHY if any(one.problem for one in found) else 0


def _listed(addresses: tuple[Address, ...]) -> str:
    return ", ".join(map(to_hex, addresses)) or "nobody"


@app.command
async def faucet(
    to: str,
    /,
    *,
    coins: str = "10000",
    seed: str = "lading",
    chain_url: ChainUrl = None,
    deployment: Record = None,
    as_json: Json = False,
) -> int:
    """Give an address coins, and the chain's currency for fees, on a local chain.

    Parameters
    ----------
    to
        The 0x address.
    coins
        How many, in coins.
    seed
        The local chain's seed.
    """
    from lading_contracts.commands import Endpoint, chain_faucet
    from lading_contracts.embedded.server import faucet_key

    chosen = context.settings(chain_url=chain_url, deployment=deployment)
    record = deployments.load(chosen.deployment_path)
    wei = parse_amount(coins, record.decimals)
    endpoint = Endpoint(chosen.chain_url, record.chain_id)
    report = await chain_faucet(endpoint, faucet_key(seed), context.typed_address(to, "receiver"), record, coins=wei)
    emit(
        {"to": to_hex(report.to), "coins": f"{coins} {record.symbol}", "transactions": len(report.transactions)},
        as_json,
    )
    return 0
