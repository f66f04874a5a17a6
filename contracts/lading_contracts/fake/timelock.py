"""OpenZeppelin's TimelockController in memory: single calls without coins, scheduled, cancelled and executed."""

from typing import Any

from lading_contracts import abi
from lading_contracts.fake.world import Book, Model, World, require
from lading_protocol.ids import ZERO_ADDRESS, Address
from lading_protocol.keys import keccak256

_ADMIN = bytes(32)
_PROPOSER, _EXECUTOR, _CANCELLER = (keccak256(name) for name in (b"PROPOSER_ROLE", b"EXECUTOR_ROLE", b"CANCELLER_ROLE"))
_DONE = 1
_UNSET, _WAITING, _READY, _DONE_STATE = range(4)


class TimelockModel(Model):
    def __init__(self, world: World, address: Address, sender: Address, *given: Any) -> None:
        super().__init__(world, address)
        min_delay, proposers, executors, admin = given
        self._roles: Book[tuple[bytes, Address], bool] = Book(world, False)
        self._timestamps: Book[bytes, int] = Book(world, 0)
        self._min_delay: Book[str, int] = Book(world, 0)
        granted = [(_ADMIN, address)] + ([(_ADMIN, admin)] if admin != ZERO_ADDRESS else [])
        granted += [(role, proposer) for proposer in proposers for role in (_PROPOSER, _CANCELLER)]
        for role, account in granted + [(_EXECUTOR, executor) for executor in executors]:
            if not self._roles[role, account]:
                self._roles[role, account] = True
                self.emit("RoleGranted", role, account, sender)
        self._min_delay["now"] = min_delay
        self.emit("MinDelayChange", 0, min_delay)

    def schedule(
        self, sender: Address, target: Address, value: int, data: bytes, predecessor: bytes, salt: bytes, delay: int
    ) -> None:
        self._check_role(_PROPOSER, sender)
        id_ = self.hash_operation(sender, target, value, data, predecessor, salt)
        require(self._timestamps[id_] == 0, "TimelockUnexpectedOperationState", id_, _states(_UNSET))
        least = self._min_delay["now"]
        require(delay >= least, "TimelockInsufficientDelay", delay, least)
        self._timestamps[id_] = self.world.now + delay
        self.emit("CallScheduled", id_, 0, target, value, data, predecessor, delay)
        if any(salt):
            self.emit("CallSalt", id_, salt)

    def cancel(self, sender: Address, id_: bytes) -> None:
        self._check_role(_CANCELLER, sender)
        pending = self._timestamps[id_] > _DONE
        require(pending, "TimelockUnexpectedOperationState", id_, _states(_WAITING, _READY))
        self._timestamps[id_] = 0
        self.emit("Cancelled", id_)

    def execute(
        self, sender: Address, target: Address, value: int, data: bytes, predecessor: bytes, salt: bytes
    ) -> None:
        if not self._roles[_EXECUTOR, ZERO_ADDRESS]:
            self._check_role(_EXECUTOR, sender)
        id_ = self.hash_operation(sender, target, value, data, predecessor, salt)
        self._check_ready(id_)
        if any(predecessor):
            require(self._timestamps[predecessor] == _DONE, "TimelockUnexecutedPredecessor", predecessor)
        self.world.run(target, data, self.address)
        self.emit("CallExecuted", id_, 0, target, value, data)
        self._check_ready(id_)
        self._timestamps[id_] = _DONE

    def update_delay(self, sender: Address, delay: int) -> None:
        require(sender == self.address, "TimelockUnauthorizedCaller", sender)
        self.emit("MinDelayChange", self._min_delay["now"], delay)
        self._min_delay["now"] = delay

    # --- views ---

    def get_min_delay(self, _sender: Address) -> int:
        return self._min_delay["now"]

    def get_timestamp(self, _sender: Address, id_: bytes) -> int:
        return self._timestamps[id_]

    def get_operation_state(self, _sender: Address, id_: bytes) -> int:
        at = self._timestamps[id_]
        if at <= _DONE:
            return _DONE_STATE if at else _UNSET
        return _WAITING if at > self.world.now else _READY

    def is_operation(self, sender: Address, id_: bytes) -> bool:
        return self.get_operation_state(sender, id_) != _UNSET

    def is_operation_pending(self, sender: Address, id_: bytes) -> bool:
        return self.get_operation_state(sender, id_) in (_WAITING, _READY)

    def is_operation_ready(self, sender: Address, id_: bytes) -> bool:
        return self.get_operation_state(sender, id_) == _READY

    def is_operation_done(self, sender: Address, id_: bytes) -> bool:
        return self.get_operation_state(sender, id_) == _DONE_STATE

    def has_role(self, _sender: Address, role: bytes, account: Address) -> bool:
        return self._roles[role, account]

    def hash_operation(
        self, _sender: Address, target: Address, value: int, data: bytes, predecessor: bytes, salt: bytes
    ) -> bytes:
        types = ("address", "uint256", "bytes", "bytes32", "bytes32")
        return keccak256(abi.encode(types, (target, value, data, predecessor, salt)))

    # --- inside ---

    def _check_role(self, role: bytes, account: Address) -> None:
        require(self._roles[role, account], "AccessControlUnauthorizedAccount", account, role)

    def _check_ready(self, id_: bytes) -> None:
        ready = _DONE < self._timestamps[id_] <= self.world.now
        require(ready, "TimelockUnexpectedOperationState", id_, _states(_READY))


def _states(*allowed: int) -> bytes:
    return sum(1 << state for state in allowed).to_bytes(32, "big")
