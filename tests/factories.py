"""Builders for tests: keys, networks, offers, requests. Values only; no mocks."""

import msgspec

from lading_contracts.deployment import Deployment
from lading_protocol.eip712 import Domain
from lading_protocol.ids import Address, AgentId, Digest, JobId, TermsId, Wei
from lading_protocol.keys import PrivateKey
from lading_protocol.messages import Advert, ChatRequest, EmbedRequest, Message, OfferDetail, Sampler, request_hash
from lading_protocol.offers import KnownOffer, check_advert, make_advert
from lading_protocol.pricing import Price, attempt_amount
from lading_protocol.receipts import Finish, Offer, Receipt, SignedReceipt
from lading_protocol.transcript import sha256

NOW = 1_800_000_000.0


def key(label: str) -> PrivateKey:
    return PrivateKey(sha256(b"lading tests " + label.encode()))


def contract(label: str) -> Address:
    return key(f"contract {label}").address


def network(chain_id: int = 1337) -> Deployment:
    return Deployment(
        chain_id=chain_id,
        block=0,
        coin=contract("coin"),
        registry=contract("registry"),
        settlement=contract("settlement"),
        timelock=contract("timelock"),
        parameters=contract("parameters"),
        staking=contract("staking"),
        court=contract("court"),
        lineage_court=contract("lineage court"),
        offer_book=contract("offer book"),
        share_auctions=contract("share auctions"),
        promotion_auctions=contract("promotion auctions"),
        leases=contract("leases"),
    )


def detail(**changes: object) -> OfferDetail:
    base = OfferDetail(
        name="chat",
        endpoints=(),
        operations=("chat", "embed", "echo"),
        engine="memory",
        numeric="memory",
        tier="P",
        context=4096,
        credit=64,
        program="lading/0.1.0",
        device="cpu-avx2",
    )
    return msgspec.structs.replace(base, **changes)


def known_offer(
    host: PrivateKey,
    domain: Domain | None = None,
    *,
    price_in: int = 1_000_000,
    price_out: int = 2_000_000,
    agent: bytes = b"\xaa" * 32,
    terms: bytes = b"\xbb" * 32,
    sequence: int = 1,
    now: float = NOW,
    slots: int = 4,
    **changes: object,
) -> KnownOffer:
    domain = domain or network().settlement_domain
    offer = Offer(host.address, agent, terms, price_in, price_out, slots, sequence, int(now) + 3600, bytes(32))
    return check_advert(make_advert(offer, detail(**changes), domain, host), domain, now)


def with_changes(
    known: KnownOffer, *, offer: Offer | None = None, detail: OfferDetail | None = None, advert: Advert | None = None
) -> KnownOffer:
    """The offer, otherwise the same; nobody signed it."""
    return KnownOffer(known.id, offer or known.offer, detail or known.detail, advert or known.advert)


def unsigned_offer(
    host: bytes,
    price_in: int,
    price_out: int,
    *,
    agent: bytes = b"\xaa" * 32,
    terms: bytes = b"\xbb" * 32,
    sequence: int = 1,
    slots: int = 4,
    expires: int = int(NOW) + 3600,
    **changes: object,
) -> KnownOffer:
    """As `known_offer` makes, for tests that need very many: nobody signed it."""
    offer = Offer(Address(host), agent, terms, price_in, price_out, slots, sequence, expires, bytes(32))
    about = detail(**changes)
    return KnownOffer(sha256(host + terms + sequence.to_bytes(8, "big")), offer, about, Advert(bytes(65), about))


def chat_request(text: str = "Tell me a story.", max_tokens: int = 64, **sampler: object) -> ChatRequest:
    return ChatRequest((Message("user", text),), max_tokens, Sampler(seed=b"\x07" * 32, **sampler))  # type: ignore[arg-type]


def embed_request(*texts: str) -> EmbedRequest:
    return EmbedRequest(texts or ("a fox",))


def job_id(label: str = "job") -> JobId:
    return JobId(sha256(label.encode()))


def receipt(who: PrivateKey | None = None, network: Deployment | None = None, **changes: object) -> SignedReceipt:
    """A host's receipt over its first 32 tokens."""
    host, there = who or key("host"), network or globals()["network"]()
    price, count = Price(Wei(1_000_000), Wei(2_000_000)), int(str(changes.get("output_tokens", 32)))
    first, prompt = int(str(changes.get("first", 0))), int(str(changes.get("prompt_tokens", 9)))
    base = Receipt(
        job=job_id(),
        attempt=0,
        request=request_hash(chat_request()),
        agent=AgentId(bytes(32)),
        terms=TermsId(bytes(32)),
        host=host.address,
        signer=key("payer").address,
        epoch=0,
        first=first,
        prompt_tokens=prompt,
        output_tokens=count,
        prompt_hash=Digest(bytes(32)),
        commitment=Digest(bytes(32)),
        price_in=price.input,
        price_out=price.output,
        amount=attempt_amount(price, prompt, first, count),
        finish=int(Finish.RUNNING),
        issued_at=int(NOW),
        tier=2,
    )
    return msgspec.structs.replace(base, **changes).sign(there.court_domain, host)
