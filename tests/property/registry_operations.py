"""Random operations on the registry: agents, versions, sunsets, tables with every kind of consent."""

from typing import Any

from hypothesis import strategies as st

from lading_contracts.registry import Party, terms_id
from lading_protocol.eip712 import Domain
from lading_protocol.receipts import TermsConsent
from property.chain_kit import AGENT, CHILD, key
from property.operations import Area, Step, Strategy, mostly, op, wait
from property.twin_chains import Call

NOTICE = 7 * 86_400
OWNERS = ("maker", "oem", "weaver")
DIGESTS = (AGENT, CHILD, *(bytes([n]) * 32 for n in (0xB1, 0xB2, 0xB3)))
TABLES = (
    (("oem", 2, 1_111), ("maker", 1, 777), ("curator", 4, 333)),
    (("maker", 1, 600), ("weaver", 3, 100)),
    (("oem", 2, 499), ("maker", 1, 500)),
    (("maker", 1, 3_000), ("weaver", 3, 2_500), ("oem", 2, 2_500)),
    (("weaver", 3, 100), ("weaver", 3, 50)),
    (("curator", 4, 9_999), ("maker", 1, 1)),
    (("maker", 5, 10),),
    (),
)

owner, digest = mostly("maker", "oem", "weaver"), mostly(*DIGESTS)
table = st.sampled_from((*TABLES[:4] * 3, *TABLES))
role, bps = st.integers(0, 5), st.sampled_from((0, 1, 100, 333, 500))
royalty = st.sampled_from((0, 500, 500, 2_500, 5_000, 5_001))
ahead = st.sampled_from((None, 0, 1, -1, 5))
consents = st.sampled_from(("all", "all", "all", "none", "short", "late", "forged", "compact"))

REGISTRY: Strategy = st.one_of(
    op("register", owner, digest, mostly(*DIGESTS, bytes(32)), royalty),
    op("supersede", owner, digest, digest),
    op("sunset_agent", owner, digest, ahead),
    op("sunset_terms", owner, digest, table, digest, ahead),
    op("set_policy", mostly("curator", "weaver", "oem"), role, bps),
    op("agree_terms", owner, digest, table, consents),
    op("check_table", owner, digest, table, consents),
    op("condemn", digest, table),
    op("adopt", owner, digest, digest),
    op("agree_auctioned", owner, digest, table),
    wait(1, NOTICE - 1, NOTICE, NOTICE + 1),
)


def parties(shape: Any) -> list[tuple[Any, ...]]:
    """A table as the ABI wants it."""
    return [(key(name).address, role, bps) for name, role, bps in shape]


class RegistryArea(Area):
    def _register(self, owner: str, agent: bytes, parent: bytes, royalty: int) -> Call:
        return Call("registry", "register", owner, (agent, parent, royalty))

    def _supersede(self, owner: str, agent: bytes, successor: bytes) -> Call:
        return Call("registry", "supersede", owner, (agent, successor))

    def _sunset_agent(self, owner: str, agent: bytes, ahead: int | None) -> Call:
        return Call("registry", "sunsetAgent", owner, (agent, self._moment(ahead)))

    def _sunset_terms(self, owner: str, agent: bytes, shape: Any, named: bytes, ahead: int | None) -> Call:
        return Call("registry", "sunsetTerms", owner, (self.terms(agent, shape), named, self._moment(ahead)))

    def _set_policy(self, party: str, role: int, bps: int) -> Call:
        return Call("registry", "setPolicy", party, (role, bps))

    def _agree_terms(self, owner: str, agent: bytes, shape: Any, consents: str) -> Call:
        given = self.consents(agent, shape, consents)
        return Call("registry", "agreeTerms", owner, (agent, parties(shape), *given))

    def _check_table(self, owner: str, agent: bytes, shape: Any, consents: str) -> Call:
        given = self.consents(agent, shape, consents)
        arguments = (agent, key(owner).address, parties(shape), *given)
        return Call("registry", "checkTable", "stranger", arguments, view=True)

    def _condemn(self, agent: bytes, shape: Any) -> Call:
        return Call("registry", "condemn", "stranger", (agent, parties(shape)))

    def _adopt(self, sender: str, agent: bytes, parent: bytes) -> Call:
        return Call("registry", "adopt", sender, (agent, parent))

    def _agree_auctioned(self, sender: str, agent: bytes, shape: Any) -> Call:
        return Call("registry", "agreeAuctioned", sender, (agent, parties(shape), self.now + 10))

    def terms(self, agent: bytes, shape: Any) -> bytes:
        return terms_id(agent, [Party(*row) for row in parties(shape)])

    def consents(self, agent: bytes, shape: Any, kind: str) -> tuple[int, list[bytes]]:
        """(deadline, one signature for each party): good ones, or spoiled in one of the ways that there are."""
        deadline = self.now + (0 if kind == "late" else 100)
        domain = Domain(self.stage.deployment.chain_id, self.stage.deployment.registry)
        paper = TermsConsent(self.terms(agent, shape), deadline).digest(domain)
        signed = [key("stranger" if kind == "forged" else name).sign_digest(paper) for name, _, _ in shape]
        match kind:
            case "none":
                return 0, []
            case "short":
                return deadline, list(signed[1:])
            case "compact":
                return deadline, [_compact(one) for one in signed]
            case _:
                return deadline, list(signed)

    def _moment(self, ahead: int | None) -> int:
        return 0 if ahead is None else self.now + NOTICE + ahead


def _compact(signature: bytes) -> bytes:
    """The same in 64 bytes (ERC-2098)."""
    word = int.from_bytes(signature[32:64], "big") | (signature[64] - 27) << 255
    return signature[:32] + word.to_bytes(32, "big")


def registry_views(area: RegistryArea) -> list[Step]:
    asked: list[Step] = [("registry", "agents", agent) for agent in (*DIGESTS, bytes(32))]
    for agent in DIGESTS:
        for shape in TABLES:
            asked += [("registry", view, area.terms(agent, shape)) for view in ("terms", "isOpen")]
    asked += [("registry", "policyOf", key(name).address, role) for name in ("curator", "weaver") for role in range(6)]
    return [*asked, ("registry", "NOTICE"), ("registry", "auctions"), ("registry", "lineageCourt")]
