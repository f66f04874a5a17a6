"""Payments that no payee can block, in memory: what the coin refuses to pay waits for its owner."""

from lading_contracts.fake.coin import CoinModel
from lading_contracts.fake.world import Book, Model, Refused, World, require
from lading_protocol.ids import Address


class PaymentsModel(Model):
    """Base of the models whose contract is a `Payments`."""

    def __init__(self, world: World, address: Address, coin: Address) -> None:
        super().__init__(world, address)
        self._coin: CoinModel = world.contracts[coin]
        self._unpaid: Book[Address, int] = Book(world, 0)

    def collect_unpaid(self, sender: Address, to: Address) -> None:
        amount = self._unpaid[sender]
        require(amount != 0, "NothingUnpaid", sender)
        self._unpaid[sender] = 0
        self.emit("UnpaidCollected", sender, to, amount)
        self._coin.transfer(self.address, to, amount)

    def unpaid(self, _sender: Address, payee: Address) -> int:
        return self._unpaid[payee]

    def coin(self, _sender: Address) -> Address:
        return self._coin.address

    def _send(self, to: Address, amount: int) -> None:
        if amount == 0:
            return
        try:
            with self.world.attempt():
                self._coin.transfer(self.address, to, amount)
        except Refused:
            self._unpaid[to] += amount
            self.emit("Unpaid", to, amount)

    def _pull(self, payer: Address, amount: int) -> None:
        self._coin.transfer_from(self.address, payer, self.address, amount)

    def _destroy(self, amount: int) -> None:
        if amount:
            self._coin.burn(self.address, amount)
