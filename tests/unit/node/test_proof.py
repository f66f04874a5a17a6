"""What counts as proof that a prompt is billed elsewhere, and what only looks like it."""

import asyncio
from typing import Any

import msgspec
import pytest

from factories import NOW, chat_request, key, known_offer, network, receipt
from lading_contracts.deploy import Parameters, deploy
from lading_contracts.deployment import Contracts
from lading_contracts.fake import FakeChain
from lading_net.clock import run_virtual
from lading_node.core.proof import PROOF_SECONDS, Prompt, read_proof
from lading_node.proofs import MOST_USES, STAKE_SECONDS, Proofs
from lading_protocol import VERSION
from lading_protocol.keys import PrivateKey
from lading_protocol.messages import Open, request_hash
from lading_protocol.receipts import StakeConsent

COIN = 10**18
NET = network()
OFFER = known_offer(key("host"))
REQUEST = chat_request()


def opening(proof: bytes, emitted: tuple[int, ...] = (5,)) -> Open:
    return Open(VERSION, bytes(32), 0, OFFER.id, key("payer").address, 0, REQUEST, emitted, proof=proof)


def proof(**changes: Any) -> bytes:
    base: dict[str, Any] = {"agent": OFFER.agent, "request": request_hash(REQUEST)}
    return receipt(key("first host"), **base | changes).pack()


def counts(packed: bytes, emitted: tuple[int, ...] = (5,), now: float = NOW) -> bool:
    return read_proof(opening(packed, emitted), OFFER, NET.court_domain, now) is not None


def test_a_receipt_of_the_same_answers_beginning_is_proof() -> None:
    assert counts(proof())
    assert counts(proof(output_tokens=1), emitted=tuple(range(40)))
    assert counts(proof(), now=NOW + PROOF_SECONDS - 1)


@pytest.mark.parametrize(
    "changes",
    [
        {"first": 3},
        {"output_tokens": 0},
        {"prompt_tokens": 0},
        {"request": request_hash(chat_request("another"))},
        {"agent": b"\x01" * 32},
        {"host": key("not the signer").address},
        {"issued_at": int(NOW + 3600)},
        {"issued_at": int(NOW - PROOF_SECONDS - 60)},
    ],
)
def test_other_receipts_are_none(changes: dict[str, Any]) -> None:
    assert not counts(proof(**changes))


@pytest.mark.parametrize("packed", [b"", b"x" * 700, proof()[:-1], proof()[:-65] + bytes(65)])
def test_what_is_no_receipt_is_none(packed: bytes) -> None:
    assert not counts(packed)


def test_a_receipt_without_tokens_of_the_answer_is_none() -> None:
    assert not counts(proof(), emitted=())


class Shore:
    """A chain on which some operators have a stake, and a desk that looks at it."""

    @classmethod
    async def build(cls, *staked: PrivateKey) -> "Shore":
        made, bank = cls(), key("bank")
        made.chain = FakeChain(made.now, block_time=1.0)
        made.contracts = Contracts(made.chain, await deploy(made.chain, bank, Parameters.devnet()))
        made.record = made.contracts.deployment
        for who in staked:
            await made.contracts.coin.approve(bank, made.record.staking, 2000 * COIN)
            consent = StakeConsent(bank.address).sign(made.record.staking_domain, who).signature
            await made.contracts.staking.stake(bank, who.address, 2000 * COIN, consent)
        made.proofs = Proofs(key("host").address, made.contracts, made.now)
        return made

    @staticmethod
    def now() -> float:
        return NOW + asyncio.get_running_loop().time()

    async def check(self, who: PrivateKey, tokens: int = 1) -> Prompt | None:
        """Whether a receipt of that host counts."""
        changes: dict[str, Any] = {"agent": OFFER.agent, "request": request_hash(REQUEST), "output_tokens": tokens}
        packed = receipt(who, self.record, **changes).pack()
        return await self.proofs.check(opening(packed), OFFER)


def test_only_who_has_a_stake_can_sign_for_a_prompt_and_a_few_times() -> None:
    async def story() -> None:
        shore = await Shore.build(key("first host"))
        for _ in range(MOST_USES):
            assert await shore.check(key("first host")) == Prompt(9, bytes(32))
        assert await shore.check(key("first host")) is None, "one receipt is no licence for a thousand prompts"
        assert await shore.check(key("first host"), 2) == Prompt(9, bytes(32))
        assert await shore.check(key("nobody")) is None
        assert await shore.check(key("host")) == Prompt(9, bytes(32)), "what it signed itself"

    run_virtual(story())


def test_what_the_chain_said_last_holds_while_it_is_down() -> None:
    async def story() -> None:
        shore = await Shore.build(key("first host"))
        assert await shore.check(key("first host"), 1)
        shore.chain.down = True
        await asyncio.sleep(STAKE_SECONDS + 1)
        assert await shore.check(key("first host"), 2)
        shore.proofs = Proofs(key("host").address, shore.contracts, shore.now)
        assert await shore.check(key("first host"), 3) is None

    run_virtual(story())


def test_an_elder_host_reads_what_an_open_says_without_the_feature() -> None:
    from lading_protocol.elder import ElderOpen

    whole = opening(b"")
    known = {name: getattr(whole, name) for name in ElderOpen.__struct_fields__}
    elder = ElderOpen(**known)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(elder), type=Open) == whole
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(msgspec.msgpack.encode(whole), type=ElderOpen)
