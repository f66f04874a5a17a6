"""AICoin in memory: balances, allowances, burning."""

from typing import Any

from lading_contracts.fake.world import Book, Model, World, require
from lading_protocol.ids import MAX_U96, ZERO_ADDRESS, Address

_FOR_EVER = 2**256 - 1


class CoinModel(Model):
    def __init__(self, world: World, address: Address, sender: Address, *given: Any) -> None:
        super().__init__(world, address)
        self._name, self._symbol, supply, holder = given
        self._balances: Book[Address, int] = Book(world, 0)
        self._allowances: Book[tuple[Address, Address], int] = Book(world, 0)
        self._supply: Book[str, int] = Book(world, 0)
        require(supply <= MAX_U96, "SupplyTooLarge", supply)
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
        allowed = self._allowances[owner, sender]
        if allowed != _FOR_EVER:
            require(allowed >= amount, "ERC20InsufficientAllowance", sender, allowed, amount)
            self._allowances[owner, sender] = allowed - amount
        return self.transfer(owner, to, amount)

    def burn(self, sender: Address, amount: int) -> None:
        held = self._balances[sender]
        require(held >= amount, "ERC20InsufficientBalance", sender, held, amount)
        self._balances[sender] = held - amount
        self._supply["total"] -= amount
        self.emit("Transfer", sender, ZERO_ADDRESS, amount)
