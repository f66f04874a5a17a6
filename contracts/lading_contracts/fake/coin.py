"""AICoin in memory: balances, allowances, burning, ERC-2612 permits and ERC-3009 authorizations."""

from typing import Any

from lading_contracts import abi
from lading_contracts.fake.world import Book, Model, World, require, signer_of
from lading_protocol.ids import MAX_U96, ZERO_ADDRESS, Address
from lading_protocol.keys import keccak256

_FOR_EVER = 2**256 - 1
_DOMAIN = keccak256(b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)")
_PERMIT = "Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)"
_MOVE = "WithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)"
_IN_BLOCKS = 1 << 47
_CANCEL = "CancelAuthorization(address authorizer,bytes32 nonce)"


class CoinModel(Model):
    def __init__(self, world: World, address: Address, sender: Address, *given: Any) -> None:
        super().__init__(world, address)
        self._name, self._symbol, supply, holder = given
        self._balances: Book[Address, int] = Book(world, 0)
        self._allowances: Book[tuple[Address, Address], int] = Book(world, 0)
        self._supply: Book[str, int] = Book(world, 0)
        self._nonces: Book[Address, int] = Book(world, 0)
        self._spent: Book[tuple[Address, bytes], bool] = Book(world, False)
        require(supply <= MAX_U96, "SupplyTooLarge", supply)
        require(holder != ZERO_ADDRESS, "ERC20InvalidReceiver", holder)
        self._supply["total"] = supply
        self._balances[holder] = supply
        self.emit("Transfer", ZERO_ADDRESS, holder, supply)

    def balance_of(self, _sender: Address, holder: Address) -> int:
        return self._balances[holder]

    def allowance(self, _sender: Address, owner: Address, spender: Address) -> int:
        return self._allowances[owner, spender]

    def total_supply(self, _sender: Address) -> int:
        return self._supply["total"]

    def name(self, _sender: Address) -> str:
        return str(self._name)

    def symbol(self, _sender: Address) -> str:
        return str(self._symbol)

    def decimals(self, _sender: Address) -> int:
        return 18

    def nonces(self, _sender: Address, owner: Address) -> int:
        return self._nonces[owner]

    def authorization_state(self, _sender: Address, authorizer: Address, nonce: bytes) -> bool:
        return self._spent[authorizer, nonce]

    def approve(self, sender: Address, spender: Address, amount: int) -> bool:
        require(spender != ZERO_ADDRESS, "ERC20InvalidSpender", spender)
        self._allowances[sender, spender] = amount
        self.emit("Approval", sender, spender, amount)
        return True

    def transfer(self, sender: Address, to: Address, amount: int) -> bool:
        require(to != ZERO_ADDRESS, "ERC20InvalidReceiver", to)
        held = self._balances[sender]
        require(held >= amount, "ERC20InsufficientBalance", sender, held, amount)
        self._balances[sender] = held - amount
        self._balances[to] += amount
        self.emit("Transfer", sender, to, amount)
        return True

    def transfer_from(self, sender: Address, owner: Address, to: Address, amount: int) -> bool:
        self._spend_allowance(owner, sender, amount)
        return self.transfer(owner, to, amount)

    def burn(self, sender: Address, amount: int) -> None:
        held = self._balances[sender]
        require(held >= amount, "ERC20InsufficientBalance", sender, held, amount)
        self._balances[sender] = held - amount
        self._supply["total"] -= amount
        self.emit("Transfer", sender, ZERO_ADDRESS, amount)

    def burn_from(self, sender: Address, owner: Address, amount: int) -> None:
        self._spend_allowance(owner, sender, amount)
        self.burn(owner, amount)

    def permit(
        self, _sender: Address, owner: Address, spender: Address, value: int, deadline: int, *signed: Any
    ) -> None:
        require(self.world.now <= deadline, "ERC2612ExpiredSignature", deadline)
        nonce = self._nonces[owner]
        self._nonces[owner] = nonce + 1
        signer = signer_of(self._digest(_PERMIT, owner, spender, value, nonce, deadline), _joined(*signed))
        require(signer == owner, "ERC2612InvalidSigner", signer, owner)
        self.approve(owner, spender, value)

    def transfer_with_authorization(self, _sender: Address, *given: Any) -> None:
        """(from, to, value, validAfter, validBefore, nonce, v, r, s)."""
        self._check_signer("Transfer" + _MOVE, given[:6], given[6:])
        self._move_as_signed(*given[:6])

    def receive_with_authorization(self, sender: Address, *given: Any) -> None:
        self._check_signer("Receive" + _MOVE, given[:6], given[6:])
        require(given[1] == sender, "ERC20InvalidReceiver", given[1])
        self._move_as_signed(*given[:6])

    def cancel_authorization(self, _sender: Address, authorizer: Address, nonce: bytes, *signed: Any) -> None:
        self._check_signer(_CANCEL, (authorizer, nonce), signed)
        self._spend(authorizer, nonce)
        self.emit("AuthorizationCanceled", authorizer, nonce)

    def _check_signer(self, declared: str, values: tuple[Any, ...], signed: tuple[Any, ...]) -> None:
        signer = signer_of(self._digest(declared, *values), _joined(*signed))
        require(signer == values[0], "ERC3009InvalidSignature")

    def _move_as_signed(self, from_: Address, to: Address, value: int, after: int, before: int, nonce: bytes) -> None:
        """OpenZeppelin counts blocks instead of seconds when both bounds carry its flag."""
        flag = after & before & _IN_BLOCKS
        current = self.world.number if flag else self.world.now
        in_time = (after & ~flag) < current < (before & ~flag)
        require(in_time, "ERC3009InvalidAuthorizationTime", after, before)
        self._spend(from_, nonce)
        self.emit("AuthorizationUsed", from_, nonce)
        self.transfer(from_, to, value)

    def _spend(self, authorizer: Address, nonce: bytes) -> None:
        require(not self._spent[authorizer, nonce], "ERC3009UsedAuthorization", authorizer, nonce)
        self._spent[authorizer, nonce] = True

    def _spend_allowance(self, owner: Address, spender: Address, amount: int) -> None:
        allowed = self._allowances[owner, spender]
        if allowed != _FOR_EVER:
            require(allowed >= amount, "ERC20InsufficientAllowance", spender, allowed, amount)
            self._allowances[owner, spender] = allowed - amount

    def _digest(self, declared: str, *values: Any) -> bytes:
        """The EIP-712 digest under the coin's own name, unlike the domain of all other contracts."""
        kinds = [field.split(" ")[0] for field in declared.split("(")[1][:-1].split(",")]
        separator = abi.encode(
            ("bytes32", "bytes32", "bytes32", "uint256", "address"),
            (_DOMAIN, keccak256(self._name.encode()), keccak256(b"1"), self.world.chain_id, self.address),
        )
        struct = abi.encode(("bytes32", *kinds), (keccak256(declared.encode()), *values))
        return keccak256(b"\x19\x01" + keccak256(separator) + keccak256(struct))


def _joined(v: int, r: bytes, s: bytes) -> bytes:
    return r + s + bytes([v])
