"""JSON-RPC methods of the embedded chain: names and hex on one side, the Evm on the other. Knows no socket.

Answers what web3.py and Lading ask, in Geth's shapes, so that any EVM tool works against it. Methods that only a test
wants (time travel, empty blocks, undo) carry the names that anvil and ganache gave them.
"""

from collections.abc import Callable
from typing import Any

import msgspec
from eth_utils.exceptions import ValidationError
from rlp.exceptions import RLPException  # type: ignore[import-untyped]

from lading_contracts.embedded.evm import GAS_LIMIT, Evm, Execution

_TIP = 1_000_000_000
_TAGS_LATEST = ("latest", "pending", "safe", "finalized", None)
_MAX_LOGS = 20_000


class Refusal(Exception):
    """An error answer of JSON-RPC."""

    def __init__(self, code: int, message: str, data: str | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.data = code, message, data


class Methods:
    """`answer(method, params)` returns a JSON-able value or msgspec.Raw, or raises Refusal."""

    def __init__(self, evm: Evm) -> None:
        self._evm = evm
        self._table: dict[str, Callable[..., Any]] = {
            "web3_clientVersion": lambda: "Lading/embedded/py-evm",
            "net_version": lambda: str(evm.chain_id),
            "net_listening": lambda: True,
            "eth_syncing": lambda: False,
            "eth_accounts": list,
            "eth_chainId": lambda: hex(evm.chain_id),
            "eth_blockNumber": lambda: hex(evm.head.block_number),
            "eth_gasPrice": lambda: hex(evm.base_fee + _TIP),
            "eth_maxPriorityFeePerGas": lambda: hex(_TIP),
            "eth_feeHistory": self._fee_history,
            "eth_getBlockByNumber": self._block_by_number,
            "eth_getBlockByHash": self._block_by_hash,
            "eth_getBalance": lambda who, at="latest": hex(self._state(at).get_balance(_bytes(who))),
            "eth_getTransactionCount": lambda who, at="latest": hex(self._state(at).get_nonce(_bytes(who))),
            "eth_getCode": lambda who, at="latest": _hx(self._state(at).get_code(_bytes(who))),
            "eth_getStorageAt": self._storage_at,
            "eth_call": self._call,
            "eth_estimateGas": self._estimate,
            "eth_sendRawTransaction": self._send,
            "eth_getTransactionReceipt": lambda tx: self._tx(tx, 1),
            "eth_getTransactionByHash": lambda tx: self._tx(tx, 0),
            "eth_getLogs": self._logs,
            "evm_mine": self._mine,
            "evm_increaseTime": lambda seconds: hex(evm.increase_time(_int(seconds))),
            "evm_snapshot": lambda: hex(evm.head.block_number),
            "evm_revert": self._revert,
        }

    def answer(self, method: str, params: list[Any]) -> Any:
        handler = self._table.get(method)
        if handler is None:
            raise Refusal(-32601, f"The embedded chain has no method {method}.")
        try:
            return handler(*params)
        except Refusal:
            raise
        except (TypeError, ValueError, KeyError, AttributeError, RLPException, msgspec.ValidationError) as error:
            raise Refusal(-32602, f"{method}: bad parameters: {error}") from error

    # --- blocks ---

    def _number(self, tag: Any) -> int:
        if tag in _TAGS_LATEST:
            return int(self._evm.head.block_number)
        return 0 if tag == "earliest" else _int(tag)

    def _state(self, tag: Any) -> Any:
        number = None if tag in _TAGS_LATEST else self._number(tag)
        if number is not None and number > self._evm.head.block_number:
            raise Refusal(-32000, f"There is no block {number} yet.")
        return self._evm.state_at(number)

    def _block_by_number(self, tag: Any, full: bool = False) -> Any:
        return self._block(self._number(tag), full)

    def _block_by_hash(self, block_hash: str, full: bool = False) -> Any:
        return self._block(_bytes(block_hash), full)

    def _block(self, key: int | bytes, full: bool) -> Any:
        body = self._evm.store.block_body(key)
        if body is None:
            return None
        if not full:
            return msgspec.Raw(body)
        block = msgspec.json.decode(body)
        block["transactions"] = [msgspec.Raw(tx) for tx in self._evm.store.tx_bodies(int(block["number"], 16))]
        return block

    def _fee_history(self, count: Any, newest: Any, percentiles: list[float] | None = None) -> dict[str, Any]:
        last = self._number(newest)
        first = max(0, last - min(_int(count), 100) + 1)
        blocks = [msgspec.json.decode(self._evm.store.block_body(n) or b"{}") for n in range(first, last + 1)]
        following = self._evm.base_fee
        return {
            "oldestBlock": hex(first),
            "baseFeePerGas": [block["baseFeePerGas"] for block in blocks] + [hex(following)],
            "gasUsedRatio": [int(block["gasUsed"], 16) / GAS_LIMIT for block in blocks],
            "reward": [[hex(_TIP)] * len(percentiles or ()) for _ in blocks],
        }

    # --- calls ---

    def _message(self, call: dict[str, Any]) -> tuple[bytes, bytes | None, bytes, int]:
        data = _bytes(call.get("input") or call.get("data") or "0x")
        to = call.get("to")
        return (
            _bytes(call.get("from") or "0x" + "00" * 20),
            _bytes(to) if to else None,
            data,
            _int(call.get("value", 0)),
        )

    def _call(self, call: dict[str, Any], tag: Any = "latest", *_overrides: Any) -> str:
        sender, to, data, value = self._message(call)
        number = None if tag in _TAGS_LATEST else self._number(tag)
        gas = min(_int(call.get("gas", GAS_LIMIT)), GAS_LIMIT)
        return _hx(_succeeded(self._evm.execute(sender, to, data, value, gas, number)).output)

    def _estimate(self, call: dict[str, Any], _tag: Any = "latest") -> str:
        gas, run = self._evm.estimate(*self._message(call))
        _succeeded(run)
        return hex(gas)

    def _storage_at(self, who: str, slot: Any, tag: Any = "latest") -> str:
        return _hx(self._state(tag).get_storage(_bytes(who), _int(slot)).to_bytes(32, "big"))

    # --- transactions ---

    def _send(self, raw: str) -> str:
        tx = self._evm.decode(_bytes(raw))
        if self._evm.store.tx(tx.hash) is not None:
            raise Refusal(-32000, "already known")
        state = self._evm.state_at()
        nonce = state.get_nonce(tx.sender)
        if tx.nonce != nonce:
            word = "low" if tx.nonce < nonce else "high"
            raise Refusal(-32000, f"nonce too {word}: next nonce {nonce}, tx nonce {tx.nonce}")
        if state.get_balance(tx.sender) < tx.value + tx.gas * tx.max_fee_per_gas:
            raise Refusal(-32000, "insufficient funds for gas * price + value")
        try:
            self._evm.mine([tx])
        except ValidationError as error:
            raise Refusal(-32000, f"invalid transaction: {error}") from error
        return _hx(tx.hash)

    def _tx(self, tx_hash: str, part: int) -> Any:
        found = self._evm.store.tx(_bytes(tx_hash))
        return None if found is None else msgspec.Raw(found[part])

    def _logs(self, query: dict[str, Any]) -> list[msgspec.Raw]:
        if block_hash := query.get("blockHash"):
            body = self._evm.store.block_body(_bytes(block_hash))
            if body is None:
                raise Refusal(-32000, "unknown block")
            first = last = int(msgspec.json.decode(body)["number"], 16)
        else:
            first, last = self._number(query.get("fromBlock")), self._number(query.get("toBlock"))
        address = query.get("address") or []
        addresses = [_bytes(one) for one in ([address] if isinstance(address, str) else address)]
        topics = [
            [] if entry is None else [_bytes(one) for one in ([entry] if isinstance(entry, str) else entry)]
            for entry in query.get("topics") or ()
        ]
        found = self._evm.store.logs(first, last, addresses, topics)
        if len(found) > _MAX_LOGS:
            raise Refusal(-32005, f"query returned more than {_MAX_LOGS} results")
        return [msgspec.Raw(body) for body in found]

    # --- for tests ---

    def _mine(self, how: Any = None) -> str:
        options = how if isinstance(how, dict) else {"timestamp": how}
        stamp = options.get("timestamp")
        for _ in range(_int(options.get("blocks", 1))):
            self._evm.mine(timestamp=None if stamp is None else _int(stamp))
        return "0x0"

    def _revert(self, number: Any) -> bool:
        try:
            self._evm.rewind(_int(number))
        except ValidationError as error:
            raise Refusal(-32000, str(error)) from error
        return True


def _succeeded(run: Execution) -> Execution:
    if run.error:
        data = _hx(run.output) if run.output else None
        raise Refusal(3 if run.error == "execution reverted" else -32000, run.error, data)
    return run


def _hx(value: bytes) -> str:
    return "0x" + value.hex()


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


def _int(value: Any) -> int:
    return value if isinstance(value, int) else int(value, 16)
