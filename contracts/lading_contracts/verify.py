"""Whether what stands on the chain is what this package was built from, byte for byte, and wired as the record says.

Trusts the RPC endpoint for the code and nothing else: no explorer, no compiler. What a constructor fixed (immutables)
is masked in the code and asked for by name instead.
"""

import json
from importlib.resources import files

import msgspec

from lading_contracts import abi
from lading_contracts.deployment import Deployment
from lading_contracts.errors import BadAbi, Reverted
from lading_contracts.port import Chain
from lading_protocol.ids import Address, to_hex

# (contract, view, the record's field that it must name)
WIRES: tuple[tuple[str, str, str], ...] = (
    ("AgentRegistry", "auctions", "share_auctions"),
    ("AgentRegistry", "lineageCourt", "lineage_court"),
    ("Settlement", "coin", "coin"),
    ("Settlement", "registry", "registry"),
    ("Parameters", "governor", "timelock"),
    ("Staking", "coin", "coin"),
    ("Staking", "court", "court"),
    ("AuditCourt", "coin", "coin"),
    ("AuditCourt", "staking", "staking"),
    ("AuditCourt", "settlement", "settlement"),
    ("AuditCourt", "parameters", "parameters"),
    ("LineageCourt", "coin", "coin"),
    ("LineageCourt", "staking", "staking"),
    ("LineageCourt", "registry", "registry"),
    ("LineageCourt", "parameters", "parameters"),
    ("OfferBook", "settlement", "settlement"),
    ("ShareAuctions", "coin", "coin"),
    ("ShareAuctions", "registry", "registry"),
    ("ShareAuctions", "parameters", "parameters"),
    ("PromotionAuctions", "coin", "coin"),
    ("PromotionAuctions", "registry", "registry"),
    ("PromotionAuctions", "parameters", "parameters"),
    ("Leases", "coin", "coin"),
    ("Leases", "staking", "staking"),
    ("Leases", "settlement", "settlement"),
)
COIN = "AICoin"


class Finding(msgspec.Struct, frozen=True):
    """`problem` is empty when the contract is genuine and wired rightly. Any ERC-20 may stand in the coin's place."""

    contract: str
    address: Address
    problem: str = ""
    note: str = ""


async def verify(chain: Chain, record: Deployment) -> tuple[Finding, ...]:
    """One finding a contract, in the record's order. Raises ChainUnreachable, WrongChain."""
    where = {name: address for address, name in record.names().items()}
    return tuple([await _judge(chain, record, name, address) for name, address in where.items()])


async def _judge(chain: Chain, record: Deployment, name: str, address: Address) -> Finding:
    code = await chain.code(address)
    if not code:
        return Finding(name, address, "There is no contract at this address.")
    if not same(name, code):
        if name == COIN:
            return Finding(name, address, note="another ERC-20: its issuer's promises count, not ours")
        return Finding(name, address, "The code is not this version's.")
    for contract, view, field in WIRES:
        if contract != name:
            continue
        expected = getattr(record, field)
        found = await _named(chain, name, address, view)
        if found != expected:
            shown = "nothing" if found is None else to_hex(found)
            return Finding(name, address, f"Its {view} is {shown}, the record says {to_hex(expected)}.")
    return Finding(name, address)


async def _named(chain: Chain, name: str, address: Address, view: str) -> Address | None:
    contract = abi.load(name)
    try:
        answer: Address = contract.result(view, await chain.call(address, contract.call(view)))[0]
    except (Reverted, BadAbi):
        return None
    return answer


def same(name: str, code: bytes) -> bool:
    """Whether `code` is the runtime code of the contract called `name`, whatever its immutables are. Raises BadAbi."""
    document = json.loads((files("lading_contracts") / "abi" / f"{name}.json").read_text("utf-8"))
    wanted = bytes.fromhex(document["runtime"].removeprefix("0x"))
    return len(code) == len(wanted) and _masked(code, document["immutables"]) == _masked(wanted, document["immutables"])


def _masked(code: bytes, immutables: list[list[int]]) -> bytes:
    blank = bytearray(code)
    for start, length in immutables:
        blank[start : start + length] = bytes(length)
    return bytes(blank)
