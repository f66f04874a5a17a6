"""Executes transactions and calls with py-evm and writes each block to the store. Knows no HTTP and no JSON-RPC.

Every transaction gets its own block at once. Block timestamps follow the wall clock (plus the offset a test asked for);
unlike mainnet, several blocks may share one second, or a burst of transactions would push the chain into the future.
py-evm's objects are Any here: its declared types are narrower than what it takes and gives.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import msgspec
from eth.chains.base import MiningChain
from eth.consensus.applier import ConsensusApplier
from eth.consensus.noproof import NoProofConsensus
from eth.constants import BLANK_ROOT_HASH, CREATE_CONTRACT_ADDRESS, POST_MERGE_MIX_HASH, POST_MERGE_NONCE
from eth.db.atomic import AtomicDB
from eth.exceptions import VMError
from eth.vm.forks.prague import PragueVM
from eth.vm.message import Message
from eth_utils.exceptions import ValidationError

from lading_contracts.embedded import views
from lading_contracts.embedded.store import Store, TxRow
from lading_contracts.transactions import created_address
from lading_protocol.ids import Address

GAS_LIMIT = 30_000_000
_STIPEND = 2_300  # an inner value transfer needs this much left, although it is not spent


class Execution(msgspec.Struct, frozen=True):
    """What a call came to. `error` is empty on success; a revert's data is in `output`."""

    output: bytes
    gas_left: int
    error: str = ""


class LadingVM(PragueVM):
    """Prague, but a block may carry its parent's timestamp."""

    @classmethod
    def validate_header(cls, header: Any, parent_header: Any) -> None:
        if header.timestamp < parent_header.timestamp:
            raise ValidationError("A block cannot be older than its parent.")
        super().validate_header(header.copy(timestamp=parent_header.timestamp + 1), parent_header)


class Evm:
    """One chain. Not thread-safe: call it from one thread."""

    def __init__(self, store: Store, chain_id: int, balances: Mapping[bytes, int], clock: Callable[[], float]) -> None:
        self.store = store
        self.chain_id = chain_id
        self._clock = clock
        self._offset = int(store.meta("time_offset") or 0)
        kind = _chain_class(chain_id)
        head = store.head()
        if head is None:
            with store.transaction():
                self._chain = _genesis(kind, store, balances, self.now())
                header = self._chain.get_canonical_block_by_number(0).header
                store.add_block(0, header.hash, views.block_json(header, [], 0), [])
                store.set_meta("chain_id", str(chain_id))
        else:
            self._chain = kind(_database(store))
            header = self._chain.get_block_header_by_hash(head[1])
        self._set_head(header)

    def now(self) -> int:
        return int(self._clock()) + self._offset

    def increase_time(self, seconds: int) -> int:
        self._offset += seconds
        with self.store.transaction():
            self.store.set_meta("time_offset", str(self._offset))
        return self._offset

    def _set_head(self, header: Any) -> None:
        self.head = header
        self._chain.header = self._chain.create_header_from_parent(header)
        self._view: tuple[int, Any] | None = None

    def _next_header(self, timestamp: int | None = None) -> Any:
        wanted = self.now() if timestamp is None else timestamp
        return self._chain.header.copy(timestamp=max(wanted, self.head.timestamp))

    @property
    def base_fee(self) -> int:
        """Wei per gas of the next block."""
        return int(self._chain.header.base_fee_per_gas)

    # --- reading ---

    def state_at(self, number: int | None = None) -> Any:
        """The state after a block; the newest when None. Do not change it."""
        if number is None or number >= self.head.block_number:
            return self._newest()
        block_hash = self.store.block_hash(number)
        header = self._chain.get_block_header_by_hash(block_hash)
        child = self._chain.create_header_from_parent(header, timestamp=header.timestamp + 1)
        return self._chain.get_vm(child).state

    def _newest(self) -> Any:
        """State on top of the head, kept warm between calls. It is built again once a second: time moves."""
        header = self._next_header()
        if self._view is None or self._view[0] != header.timestamp:
            self._view = (header.timestamp, self._chain.get_vm(header).state)
        return self._view[1]

    def execute(
        self, sender: bytes, to: bytes | None, data: bytes, value: int, gas: int, number: int | None = None
    ) -> Execution:
        """Run a message without leaving a trace. `gas` is what the message itself may burn."""
        state = self.state_at(number)
        snapshot = state.snapshot()
        try:
            context = state.get_transaction_context_class()(gas_price=0, origin=sender)
            nonce = state.get_nonce(sender)
            if to is None:
                message = _message(
                    gas=gas,
                    to=CREATE_CONTRACT_ADDRESS,
                    sender=sender,
                    value=value,
                    data=b"",
                    code=data,
                    create_address=created_address(Address(sender), nonce),
                )
                done = state.computation_class.apply_create_message(state, message, context)
            else:
                message = _message(gas=gas, to=to, sender=sender, value=value, data=data, code=state.get_code(to))
                done = state.computation_class.apply_message(state, message, context)
            return _execution(done)
        except VMError as error:  # for example a value that the sender does not have
            return Execution(b"", 0, str(error) or type(error).__name__)
        finally:
            state.revert(snapshot)
            if hasattr(state, "clear_transient_storage"):
                state.clear_transient_storage()

    def estimate(self, sender: bytes, to: bytes | None, data: bytes, value: int) -> tuple[int, Execution]:
        """(gas that suffices, the run). Two runs as a rule; a search only for contracts that watch their gas."""
        base = _intrinsic(data, to is None)
        most = GAS_LIMIT - base
        run = self.execute(sender, to, data, value, most)
        if run.error:
            return 0, run
        low = most - run.gas_left
        high = min(most, low + low // 32 + _STIPEND)
        while self.execute(sender, to, data, value, high).error:
            low, high = high, min(most, 2 * high)
            if low == most:
                break
        return max(base + high, _floor(data)), run

    # --- writing ---

    def decode(self, raw: bytes) -> Any:
        """Raises ValidationError or rlp errors for bytes that are no transaction of this chain."""
        return self._chain.get_vm().get_transaction_builder().decode(raw)

    def mine(self, txs: Sequence[Any] = (), timestamp: int | None = None) -> None:
        """Append one block. Raises ValidationError, and changes nothing, when a transaction is not acceptable."""
        self._chain.header = self._next_header(timestamp)
        try:
            with self.store.transaction():
                result, receipts, runs = self._chain.mine_all(list(txs))
                block = result.imported_block
                rows = _rows(block, receipts, runs)
                body = views.block_json(block.header, [tx.hash for tx in txs], len(block.transactions))
                self.store.add_block(block.number, block.hash, body, rows)
        except BaseException:
            self._set_head(self.head)
            raise
        self._set_head(block.header)

    def rewind(self, number: int) -> None:
        """Make block `number` the head again, forgetting what came after: a reorganisation, or a test's undo."""
        block_hash = self.store.block_hash(number)
        if block_hash is None:
            raise ValidationError(f"There is no block {number}.")
        with self.store.transaction():
            self.store.forget_above(number)
        self._set_head(self._chain.get_block_header_by_hash(block_hash))


def _database(store: Store) -> Any:
    return AtomicDB(cast(Any, store))  # a mapping is all that it needs


def _message(**fields: Any) -> Any:
    return Message(**fields)


def _chain_class(chain_id: int) -> Any:
    number = chain_id

    class LadingChain(MiningChain):
        chain_id = number
        vm_configuration = ConsensusApplier(NoProofConsensus).amend_vm_configuration(((0, LadingVM),))

        def create_header_from_parent(self, parent_header: Any, **header_params: Any) -> Any:
            return super().create_header_from_parent(
                parent_header, **(header_params | {"gas_limit": parent_header.gas_limit})
            )

    return LadingChain


def _genesis(kind: Any, store: Store, balances: Mapping[bytes, int], now: int) -> Any:
    params = {
        "coinbase": bytes(20),
        "difficulty": 0,
        "extra_data": b"lading",
        "gas_limit": GAS_LIMIT,
        "mix_hash": POST_MERGE_MIX_HASH,
        "nonce": POST_MERGE_NONCE,
        "receipt_root": BLANK_ROOT_HASH,
        "transaction_root": BLANK_ROOT_HASH,
        "timestamp": now,
    }
    state = {
        account: {"balance": balance, "nonce": 0, "code": b"", "storage": {}} for account, balance in balances.items()
    }
    return kind.from_genesis(_database(store), params, state)


def _rows(block: Any, receipts: Sequence[Any], runs: Sequence[Any]) -> list[TxRow]:
    rows: list[TxRow] = []
    before = logs_before = 0
    for index, (tx, receipt, run) in enumerate(zip(block.transactions, receipts, runs, strict=True)):
        created = run.msg.storage_address if tx.to == CREATE_CONTRACT_ADDRESS else None
        place = views.Place(block.number, block.hash, block.header.base_fee_per_gas, index, before, logs_before)
        rows.append(views.tx_row(tx, receipt, created, place))
        before = receipt.gas_used
        logs_before += len(receipt.logs)
    return rows


def _execution(done: Any) -> Execution:
    if not done.is_error:
        return Execution(done.output, done.get_gas_remaining())
    name = "execution reverted" if done.output or type(done.error).__name__ == "Revert" else repr(done.error)
    return Execution(done.output, 0, name)


def _intrinsic(data: bytes, creates: bool) -> int:
    zeros = data.count(0)
    words = (len(data) + 31) // 32
    return 21_000 + 4 * zeros + 16 * (len(data) - zeros) + (32_000 + 2 * words if creates else 0)


def _floor(data: bytes) -> int:
    """EIP-7623: calldata costs at least this much in all."""
    zeros = data.count(0)
    return 21_000 + 10 * (zeros + 4 * (len(data) - zeros))
