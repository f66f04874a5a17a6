"""Settlement's payers in memory: deposits, exits and session keys. The contract's checks in its order."""

from typing import Any

from msgspec.structs import replace

from lading_contracts.fake.coin import CoinModel
from lading_contracts.fake.world import Book, Model, Refused, World, require, signed_by, signer_of
from lading_contracts.settlement import Account, Session
from lading_protocol.eip712 import Domain
from lading_protocol.ids import ZERO_ADDRESS, Address, Wei
from lading_protocol.receipts import SessionConsent, SessionGrant

_NO_SESSION = Session(ZERO_ADDRESS, Wei(0), Wei(0), 0)


class DepositsModel(Model):
    def __init__(self, world: World, address: Address, coin: Address, exit_delay: int) -> None:
        super().__init__(world, address)
        self._coin: CoinModel = world.contracts[coin]
        self._exit_delay = exit_delay
        self._domain = Domain(world.chain_id, address)
        self._accounts: Book[Address, Account] = Book(world, Account(Wei(0), Wei(0), 0))
        self._sessions: Book[Address, Session] = Book(world, _NO_SESSION)
        self._grants: Book[Address, int] = Book(world, 0)

    def deposit(self, sender: Address, amount: int) -> None:
        self.deposit_for(sender, sender, amount)

    def deposit_for(self, sender: Address, payer: Address, amount: int) -> None:
        self._credit(payer, sender, amount)
        self._coin.transfer_from(self.address, sender, self.address, amount)

    def deposit_with_permit(self, sender: Address, amount: int, deadline: int, v: int, r: bytes, s: bytes) -> None:
        try:
            with self.world.attempt():
                self._coin.permit(self.address, sender, self.address, amount, deadline, v, r, s)
        except Refused:
            pass  # somebody landed it first, or there is an allowance: the transfer tells
        self.deposit(sender, amount)

    def deposit_with_authorization(self, _sender: Address, payer: Address, amount: int, *signed: Any) -> None:
        self._credit(payer, payer, amount)
        self._coin.receive_with_authorization(self.address, payer, self.address, amount, *signed)

    def authorize(self, sender: Address, key: Address, cap: int, expiry: int, consent: bytes) -> None:
        self._authorize(sender, key, cap, expiry, consent)

    def authorize_for(
        self, _sender: Address, payer: Address, key: Address, cap: int, expiry: int, consent: bytes, signature: bytes
    ) -> None:
        nonce = self._grants[payer]
        self._grants[payer] = nonce + 1
        digest = SessionGrant(payer, key, cap, expiry, nonce).digest(self._domain)
        require(signed_by(payer, digest, signature), "BadGrant", payer)
        self._authorize(payer, key, cap, expiry, consent)

    def revoke(self, sender: Address, key: Address) -> None:
        require(self._sessions[key].payer == sender, "NotPayer", sender)
        self._sessions[key] = replace(self._sessions[key], expiry=0)
        self._grants[sender] += 1
        self.emit("Revoked", sender, key)

    def request_exit(self, sender: Address, amount: int) -> None:
        account = self._accounts[sender]
        require(amount <= account.free, "OverFree", account.free)
        exit_at = self.world.now + self._exit_delay if amount else 0
        self._accounts[sender] = replace(account, exit_amount=Wei(amount), exit_at=exit_at)
        self.emit("ExitRequested", sender, amount, exit_at)

    def finish_exit(self, sender: Address) -> None:
        account = self._accounts[sender]
        require(account.exit_amount != 0, "NoExit")
        require(self.world.now >= account.exit_at, "TooEarly", account.exit_at)
        amount = min(account.exit_amount, account.free)
        self._accounts[sender] = Account(Wei(account.free - amount), Wei(0), 0)
        self.emit("Exited", sender, amount)
        if amount:
            self._coin.transfer(self.address, sender, amount)

    # --- views ---

    def accounts(self, _sender: Address, payer: Address) -> tuple[Any, ...]:
        account = self._accounts[payer]
        return account.free, account.exit_amount, account.exit_at

    def sessions(self, _sender: Address, key: Address) -> tuple[Any, ...]:
        session = self._sessions[key]
        return session.payer, session.cap, session.locked, session.expiry

    def payer_of(self, _sender: Address, signer: Address) -> Address:
        payer = self._sessions[signer].payer
        return signer if payer == ZERO_ADDRESS else payer

    def grant_nonce(self, _sender: Address, payer: Address) -> int:
        return self._grants[payer]

    def session_consent_digest(self, _sender: Address, payer: Address) -> bytes:
        return SessionConsent(payer).digest(self._domain)

    def session_grant_digest(self, _sender: Address, *fields: Any) -> bytes:
        return SessionGrant(*fields).digest(self._domain)

    def coin(self, _sender: Address) -> Address:
        return self._coin.address

    def exit_delay(self, _sender: Address) -> int:
        return self._exit_delay

    # --- inside ---

    def _credit(self, payer: Address, giver: Address, amount: int) -> None:
        require(amount != 0, "ZeroAmount")
        require(payer != ZERO_ADDRESS, "ZeroAddress")
        self._add_free(payer, amount)
        self.emit("Deposited", payer, giver, amount)

    def _add_free(self, payer: Address, amount: int) -> None:
        account = self._accounts[payer]
        self._accounts[payer] = replace(account, free=Wei(account.free + amount))

    def _authorize(self, payer: Address, key: Address, cap: int, expiry: int, consent: bytes) -> None:
        session = self._sessions[key]
        if session.payer == ZERO_ADDRESS:
            consents = signer_of(SessionConsent(payer).digest(self._domain), consent) == key
            require(consents and key != payer, "BadConsent", key)
        else:
            require(session.payer == payer, "KeyTaken", key, session.payer)
        self._sessions[key] = replace(session, payer=payer, cap=Wei(cap), expiry=expiry)
        self.emit("Authorized", payer, key, cap, expiry)
