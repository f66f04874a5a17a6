"""How the embedded chain's blocks, transactions, receipts and events look in JSON-RPC. Pure.

py-evm's objects are Any here: its declared types lack fields of the newer forks.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from lading_contracts.embedded.store import LogRow, TxRow

_EMPTY_UNCLES = "0x1dcc4de8dec75d7aab85b567b6ccd41ad312451b948a7413f0a142fd40d49347"


class Place(msgspec.Struct, frozen=True):
    """Where a transaction landed; `gas_before` and `logs_before` are the block's totals ahead of it."""

    block: int
    block_hash: bytes
    base_fee: int
    index: int
    gas_before: int
    logs_before: int


def hx(value: bytes) -> str:
    return "0x" + value.hex()


def block_json(header: Any, txs: Sequence[bytes], count: int) -> bytes:
    body = {
        "number": hex(header.block_number),
        "hash": hx(header.hash),
        "parentHash": hx(header.parent_hash),
        "nonce": hx(header.nonce),
        "sha3Uncles": _EMPTY_UNCLES,
        "logsBloom": hx(int(header.bloom).to_bytes(256, "big")),
        "transactionsRoot": hx(header.transaction_root),
        "stateRoot": hx(header.state_root),
        "receiptsRoot": hx(header.receipt_root),
        "miner": hx(header.coinbase),
        "difficulty": "0x0",
        "totalDifficulty": "0x0",
        "extraData": hx(header.extra_data),
        "mixHash": hx(header.mix_hash),
        "size": hex(600 + 200 * count),
        "gasLimit": hex(header.gas_limit),
        "gasUsed": hex(header.gas_used),
        "timestamp": hex(header.timestamp),
        "baseFeePerGas": hex(header.base_fee_per_gas),
        "uncles": [],
        "transactions": [hx(tx) for tx in txs],
    }
    return msgspec.json.encode(body)


def tx_row(tx: Any, receipt: Any, created: bytes | None, place: Place) -> TxRow:
    kind = tx.type_id or 0
    price = _price(tx, place.base_fee)
    to = None if created is not None else hx(tx.to)
    where = {
        "blockHash": hx(place.block_hash),
        "blockNumber": hex(place.block),
        "transactionIndex": hex(place.index),
    }
    shared = {**where, "from": hx(tx.sender), "to": to, "type": hex(kind)}
    body = {
        **shared,
        "hash": hx(tx.hash),
        "nonce": hex(tx.nonce),
        "value": hex(tx.value),
        "gas": hex(tx.gas),
        "gasPrice": hex(price),
        "input": hx(tx.data),
        "v": hex(tx.v if kind == 0 else tx.y_parity),
        "r": hex(tx.r),
        "s": hex(tx.s),
        "chainId": None if tx.chain_id is None else hex(tx.chain_id),
    }
    if kind >= 2:
        body |= {"maxFeePerGas": hex(tx.max_fee_per_gas), "maxPriorityFeePerGas": hex(tx.max_priority_fee_per_gas)}
    logs = tuple(_log_row(entry, tx.hash, where, place.logs_before + at) for at, entry in enumerate(receipt.logs))
    answer = {
        **shared,
        "transactionHash": hx(tx.hash),
        "cumulativeGasUsed": hex(receipt.gas_used),
        "gasUsed": hex(receipt.gas_used - place.gas_before),
        "effectiveGasPrice": hex(price),
        "contractAddress": None if created is None else hx(created),
        "logs": [msgspec.Raw(log.body) for log in logs],
        "logsBloom": hx(int(receipt.bloom).to_bytes(256, "big")),
        "status": "0x1" if receipt.state_root == b"\x01" else "0x0",
    }
    return TxRow(tx.hash, msgspec.json.encode(body), msgspec.json.encode(answer), logs)


def _log_row(entry: Any, tx: bytes, where: dict[str, str], index: int) -> LogRow:
    topics = [topic.to_bytes(32, "big") for topic in entry.topics]
    body = {
        **where,
        "transactionHash": hx(tx),
        "logIndex": hex(index),
        "address": hx(entry.address),
        "topics": [hx(topic) for topic in topics],
        "data": hx(entry.data),
        "removed": False,
    }
    return LogRow(index, entry.address, b"".join(topics), msgspec.json.encode(body))


def _price(tx: Any, base_fee: int) -> int:
    """What was paid for one gas (EIP-1559)."""
    return int(base_fee + min(tx.max_priority_fee_per_gas, tx.max_fee_per_gas - base_fee))
