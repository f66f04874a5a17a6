"""The coin in which everything is paid: a plain ERC-20, ours with permits and authorizations. Amounts are wei.

Permits (ERC-2612) and authorizations (ERC-3009) are signed under the coin's own name, unlike every other paper.
"""

from typing import Annotated

import msgspec

from lading_contracts import abi
from lading_contracts.contract import Contract
from lading_contracts.errors import BadAbi, NoPermits, Reverted
from lading_contracts.port import Signer, TxReceipt
from lading_protocol.eip712 import Addr, Bytes32, Signable, Sol, type_hash
from lading_protocol.ids import Address, Digest, Signature, Wei
from lading_protocol.keys import keccak256

U256 = Annotated[int, Sol("uint256")]
_DOMAIN = keccak256(b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)")


class CoinDomain(msgspec.Struct, frozen=True):
    """Where a permit or an authorization counts: one coin on one chain, under the coin's name."""

    name: str
    version: str
    chain_id: int
    contract: Address

    @property
    def separator(self) -> Digest:
        types = ("bytes32", "bytes32", "bytes32", "uint256", "address")
        names = keccak256(self.name.encode()), keccak256(self.version.encode())
        return keccak256(abi.encode(types, (_DOMAIN, *names, self.chain_id, self.contract)))

    def digest(self, paper: Signable) -> Digest:
        """What is signed."""
        return keccak256(b"\x19\x01" + self.separator + keccak256(type_hash(type(paper)) + paper.words()))


class Permit(Signable, frozen=True):
    """ERC-2612: `spender` may take `value` of the owner's coins. `nonce` is the owner's count of permits so far."""

    owner: Addr
    spender: Addr
    value: U256
    nonce: U256
    deadline: U256


class TransferWithAuthorization(Signable, frozen=True):
    """ERC-3009: moves `value`; anyone may send. Valid between two seconds, exclusive; `nonce` is 32 random bytes."""

    from_: Addr
    to: Addr
    value: U256
    valid_after: U256
    valid_before: U256
    nonce: Bytes32


class ReceiveWithAuthorization(Signable, frozen=True):
    """The same, by the payee only: what Settlement takes, so that nobody can take the transfer out of a deposit."""

    from_: Addr
    to: Addr
    value: U256
    valid_after: U256
    valid_before: U256
    nonce: Bytes32


class CancelAuthorization(Signable, frozen=True):
    authorizer: Addr
    nonce: Bytes32


class Coin(Contract):
    NAME = "AICoin"

    async def balance(self, holder: Address) -> Wei:
        return Wei((await self._view("balanceOf", holder))[0])

    async def allowance(self, holder: Address, spender: Address) -> Wei:
        return Wei((await self._view("allowance", holder, spender))[0])

    async def supply(self) -> Wei:
        return Wei((await self._view("totalSupply"))[0])

    async def name(self) -> str:
        return str((await self._view("name"))[0])

    async def symbol(self) -> str:
        return str((await self._view("symbol"))[0])

    async def decimals(self) -> int:
        return int((await self._view("decimals"))[0])

    async def permit_nonce(self, owner: Address) -> int:
        """What the owner's next Permit must name."""
        return int((await self._view("nonces", owner))[0])

    async def authorization_used(self, authorizer: Address, nonce: bytes) -> bool:
        """Used or cancelled."""
        return bool((await self._view("authorizationState", authorizer, nonce))[0])

    async def domain(self) -> CoinDomain:
        """Under which name permits and authorizations of this coin are signed. Raises NoPermits when it has none.

        The chain says the name, never which coin: an endpoint that lies gets a signature that is void everywhere.
        """
        try:
            _, name, version, *_ = await self._view("eip712Domain")
        except (Reverted, BadAbi) as error:
            raise NoPermits("This coin does not say under which name it takes signatures (ERC-5267).") from error
        return CoinDomain(name, version, self.chain.chain_id, self.address)

    async def transfer(self, signer: Signer, to: Address, amount: int) -> TxReceipt:
        return await self._write(signer, "transfer", to, amount)

    async def transfer_from(self, signer: Signer, owner: Address, to: Address, amount: int) -> TxReceipt:
        """Out of what `owner` allowed the signer."""
        return await self._write(signer, "transferFrom", owner, to, amount)

    async def approve(self, signer: Signer, spender: Address, amount: int) -> TxReceipt:
        return await self._write(signer, "approve", spender, amount)

    async def allow(self, signer: Signer, spender: Address, amount: int) -> TxReceipt | None:
        """Approve `spender` for at least `amount`; sends nothing when the allowance already suffices."""
        if await self.allowance(signer.address, spender) >= amount:
            return None
        return await self.approve(signer, spender, amount)

    async def burn(self, signer: Signer, amount: int) -> TxReceipt:
        return await self._write(signer, "burn", amount)

    async def burn_from(self, signer: Signer, owner: Address, amount: int) -> TxReceipt:
        return await self._write(signer, "burnFrom", owner, amount)

    # --- signed by the holder, sent by anyone ---

    async def permit(self, signer: Signer, permit: Permit, signature: Signature) -> TxReceipt:
        given = permit.owner, permit.spender, permit.value, permit.deadline
        return await self._write(signer, "permit", *given, *vrs(signature))

    async def transfer_with_authorization(
        self, signer: Signer, authorization: TransferWithAuthorization, signature: Signature
    ) -> TxReceipt:
        given = msgspec.structs.astuple(authorization)
        return await self._write(signer, "transferWithAuthorization", *given, *vrs(signature))

    async def receive_with_authorization(
        self, signer: Signer, authorization: ReceiveWithAuthorization, signature: Signature
    ) -> TxReceipt:
        """By the payee only."""
        given = msgspec.structs.astuple(authorization)
        return await self._write(signer, "receiveWithAuthorization", *given, *vrs(signature))

    async def cancel_authorization(
        self, signer: Signer, cancel: CancelAuthorization, signature: Signature
    ) -> TxReceipt:
        return await self._write(signer, "cancelAuthorization", cancel.authorizer, cancel.nonce, *vrs(signature))


def vrs(signature: bytes) -> tuple[int, bytes, bytes]:
    """A 65-byte signature as older ABIs want it: v, r, s."""
    return signature[64], signature[:32], signature[32:64]
