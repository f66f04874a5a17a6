"""Random operations on the coin and Settlement: deposits of every kind, sessions, locks, vouchers, closes, claims."""

from typing import Any

from hypothesis import strategies as st

from lading_contracts.registry import terms_id
from lading_contracts.settlement import ChannelKey, pack_rows
from lading_protocol.ids import TermsId
from lading_protocol.receipts import Lock, SessionConsent, SessionGrant, Voucher
from property.chain_kit import AGENT, CHILD, key, tables
from property.coin_papers import authorization, permit
from property.operations import Area, Step, Strategy, mostly, op, wait
from property.registry_operations import NOTICE
from property.twin_chains import Call

PAYERS, SESSIONS, HOSTS = ("alice", "bob"), ("session1", "session2"), ("host1", "host2")
SIGNERS = (*PAYERS, *SESSIONS)
AGENTS = (AGENT, CHILD)

payer, session, signer = mostly(*PAYERS), mostly(*SESSIONS), mostly("session1", "alice", "bob", "session2")
host, agent, epoch = mostly(*HOSTS), mostly(*AGENTS), mostly(0, 1)
amount = st.sampled_from((0, 1, 7, 11, 20, 29, 30, 31, 41, 60))
spoiled, good = mostly(False, True), mostly(True, False)
rows = st.lists(st.tuples(signer, amount, spoiled), min_size=1, max_size=3)
until = st.sampled_from((-5, 0, 8, 40))
k = st.integers(0, 3)
nonce = st.integers(0, 1)

MONEY: Strategy = st.one_of(
    op("deposit", payer, amount),
    op("deposit_for", payer, signer, amount),
    op("deposit_with_permit", payer, amount, until, good),
    op("deposit_with_authorization", payer, amount, until, nonce, good),
    op("authorize", payer, session, amount, until, st.sampled_from(("good", "good", "forged", "empty"))),
    op("authorize_for", payer, session, amount, until, good, good),
    op("revoke", payer, session),
    op("request_exit", payer, amount),
    op("finish_exit", payer),
    op("lock", host, agent, epoch, rows),
    op("redeem", host, agent, epoch, rows),
    op("lock_and_redeem", host, agent, epoch, rows, rows),
    op("start_close", payer, signer, host, agent, epoch),
    op("finish_close", payer, signer, host, agent, epoch),
    op("set_payout", host, host, payer),
    op("withdraw", host),
    op("claim", agent, k),
    op("claim_many", st.sampled_from(("maker", "curator")), st.lists(st.tuples(agent, k), max_size=3)),
    op("end_terms", agent, st.sampled_from((0, NOTICE))),
    wait(1, 9, 10, NOTICE),
)
COIN: Strategy = st.one_of(
    op("transfer", payer, signer, amount),
    op("approve", payer, session, amount),
    op("transfer_from", session, payer, signer, amount),
    op("burn", payer, amount),
    op("burn_from", session, payer, amount),
    op("permit", payer, session, amount, until, good),
    op(
        "move_authorized", st.sampled_from(("transfer", "receive")), session, payer, session, amount, until, nonce, good
    ),
    op("cancel_authorization", payer, nonce, good),
    wait(1, 8, 40),
)


class MoneyArea(Area):
    def _transfer(self, sender: str, to: str, amount: int) -> Call:
        return Call("coin", "transfer", sender, (key(to).address, amount))

    def _approve(self, sender: str, spender: str, amount: int) -> Call:
        return Call("coin", "approve", sender, (key(spender).address, amount))

    def _transfer_from(self, sender: str, owner: str, to: str, amount: int) -> Call:
        return Call("coin", "transferFrom", sender, (key(owner).address, key(to).address, amount))

    def _burn(self, sender: str, amount: int) -> Call:
        return Call("coin", "burn", sender, (amount,))

    def _burn_from(self, sender: str, owner: str, amount: int) -> Call:
        return Call("coin", "burnFrom", sender, (key(owner).address, amount))

    def _permit(self, owner: str, spender: str, amount: int, until: int, good: bool) -> Call:
        signed = self._permitted(owner, key(spender).address, amount, until, good)
        return Call("coin", "permit", "stranger", (key(owner).address, key(spender).address, amount, *signed))

    def _move_authorized(self, kind: str, sender: str, *given: Any) -> Call:
        return Call("coin", f"{kind}WithAuthorization", sender, self._authorization(kind, *given))

    def _cancel_authorization(self, owner: str, nonce: int, good: bool) -> Call:
        signer = key(owner if good else "stranger")
        number = nonce.to_bytes(32, "big")
        signed = authorization(self.stage.deployment, signer, "CancelAuthorization", (key(owner).address, number))
        return Call("coin", "cancelAuthorization", "stranger", (key(owner).address, number, *signed))

    def _deposit(self, payer: str, amount: int) -> Call:
        return Call("settlement", "deposit", payer, (amount,))

    def _deposit_for(self, sender: str, payer: str, amount: int) -> Call:
        return Call("settlement", "depositFor", sender, (key(payer).address, amount))

    def _deposit_with_permit(self, payer: str, amount: int, until: int, good: bool) -> Call:
        signed = self._permitted(payer, self.stage.deployment.settlement, amount, until, good)
        return Call("settlement", "depositWithPermit", payer, (amount, *signed))

    def _deposit_with_authorization(self, payer: str, amount: int, until: int, nonce: int, good: bool) -> Call:
        from_, _, *rest = self._authorization("receive", payer, "settlement", amount, until, nonce, good)
        return Call("settlement", "depositWithAuthorization", "stranger", (from_, *rest))

    def _authorize(self, payer: str, session: str, cap: int, until: int, consent: str) -> Call:
        given = b"" if consent == "empty" else self._consent(payer, session, consent == "good")
        return Call("settlement", "authorize", payer, (key(session).address, cap, max(0, self.now + until), given))

    def _authorize_for(self, payer: str, session: str, cap: int, until: int, *good: bool) -> Call:
        domain = self.stage.deployment.settlement_domain
        nonce = self.view("settlement", "grantNonce", key(payer).address)[0]
        expiry = self.now + until
        grant = SessionGrant(key(payer).address, key(session).address, cap, expiry, nonce)
        signed = key(payer if good[0] else "stranger").sign_digest(grant.digest(domain))
        consent = self._consent(payer, session, good[1])
        arguments = (key(payer).address, key(session).address, cap, expiry, consent, signed)
        return Call("settlement", "authorizeFor", "stranger", arguments)

    def _revoke(self, payer: str, session: str) -> Call:
        return Call("settlement", "revoke", payer, (key(session).address,))

    def _request_exit(self, payer: str, amount: int) -> Call:
        return Call("settlement", "requestExit", payer, (amount,))

    def _finish_exit(self, payer: str) -> Call:
        return Call("settlement", "finishExit", payer)

    def _lock(self, host: str, agent: bytes, epoch: int, rows: Any) -> Call:
        packed = self._packed(Lock, host, agent, epoch, rows)
        return Call("settlement", "lock", host, (key(host).address, self.terms(agent), epoch, packed))

    def _redeem(self, host: str, agent: bytes, epoch: int, rows: Any) -> Call:
        packed = self._packed(Voucher, host, agent, epoch, rows)
        return Call("settlement", "redeem", "stranger", (key(host).address, self.terms(agent), epoch, packed))

    def _lock_and_redeem(self, host: str, agent: bytes, epoch: int, locks: Any, vouchers: Any) -> Call:
        first, second = (
            self._packed(Lock, host, agent, epoch, locks),
            self._packed(Voucher, host, agent, epoch, vouchers),
        )
        arguments = (key(host).address, self.terms(agent), epoch, first, second)
        return Call("settlement", "lockAndRedeem", host, arguments)

    def _start_close(self, payer: str, *channel: Any) -> Call:
        return Call("settlement", "startClose", payer, self._channel(*channel))

    def _finish_close(self, payer: str, *channel: Any) -> Call:
        return Call("settlement", "finishClose", payer, self._channel(*channel))

    def _set_payout(self, sender: str, host: str, payout: str) -> Call:
        return Call("settlement", "setPayout", sender, (key(host).address, key(payout).address))

    def _withdraw(self, host: str) -> Call:
        return Call("settlement", "withdraw", "stranger", (key(host).address,))

    def _claim(self, agent: Any, k: int) -> Call:
        return Call("settlement", "claim", "stranger", (agent, self.table(agent), k))

    def _claim_many(self, payee: str, shares: Any) -> Call:
        wanted = [(agent, self.table(agent), k) for agent, k in shares]
        return Call("settlement", "claimMany", "stranger", (key(payee).address, wanted))

    def _end_terms(self, agent: bytes, ahead: int) -> Call:
        """The agent's table sunsets, which the registry only allows with notice."""
        owner = "maker" if agent == AGENT else "oem"
        return Call("registry", "sunsetTerms", owner, (self.terms(agent), agent, self.now + ahead if ahead else 0))

    # --- what the operations are made of ---

    def terms(self, agent: Any) -> TermsId:
        return terms_id(agent, tables()[agent])

    def table(self, agent: Any) -> list[tuple[Any, ...]]:
        return [(party.payee, int(party.role), party.bps) for party in tables()[agent]]

    def _channel(self, signer: str, host: str, agent: bytes, epoch: int) -> tuple[Any, ...]:
        return key(signer).address, key(host).address, self.terms(agent), epoch

    def _packed(self, kind: type[Lock] | type[Voucher], host: str, agent: bytes, epoch: int, rows: Any) -> bytes:
        domain = self.stage.deployment.settlement_domain
        signed = []
        for signer, cumulative, spoiled in rows:
            paper = kind(key(host).address, self.terms(agent), epoch, cumulative)
            signature = key(signer).sign_digest(paper.digest(domain))
            signed.append((cumulative + spoiled, signature))
        return pack_rows(signed)

    def _consent(self, payer: str, session: str, good: bool) -> bytes:
        paper = SessionConsent(key(payer).address).digest(self.stage.deployment.settlement_domain)
        return key(session if good else "stranger").sign_digest(paper)

    def _permitted(self, owner: str, spender: bytes, amount: int, until: int, good: bool) -> tuple[Any, ...]:
        """(deadline, v, r, s) of a permit with the owner's present nonce."""
        nonce = self.view("coin", "nonces", key(owner).address)[0]
        deadline = self.now + until
        signer = key(owner if good else "stranger")
        values = (key(owner).address, spender, amount, nonce, deadline)
        return deadline, *permit(self.stage.deployment, signer, values)

    def _authorization(self, kind: str, owner: str, to: str, amount: int, until: int, nonce: int, good: bool) -> Any:
        """(from, to, value, validAfter, validBefore, nonce, v, r, s), good for the payee of the name."""
        payee = self.stage.address(to) if to == "settlement" else key(to).address
        number = nonce.to_bytes(32, "big")
        values = (key(owner).address, payee, amount, self.now - 5, self.now + until, number)
        signer = key(owner if good else "stranger")
        return *values, *authorization(self.stage.deployment, signer, f"{kind.title()}WithAuthorization", values)


def money_views(area: MoneyArea) -> list[Step]:
    """Everything that money can be in."""
    people = [key(name).address for name in (*SIGNERS, *HOSTS, "maker", "oem", "curator", "stranger")]
    places = [area.stage.deployment.settlement, *people]
    asked: list[Step] = [("coin", "totalSupply"), *(("coin", "balanceOf", place) for place in places)]
    for who in people:
        asked += [("settlement", view, who) for view in ("accounts", "sessions", "hostBalance", "payoutOf", "payerOf")]
        asked += [("settlement", "grantNonce", who), ("coin", "nonces", who)]
        asked += [("coin", "authorizationState", who, n.to_bytes(32, "big")) for n in range(2)]
        asked += [("coin", "allowance", who, spender) for spender in places]
    for agent in AGENTS:
        terms, table = area.terms(agent), area.table(agent)
        asked += [("settlement", "earned", terms), ("settlement", "gross", terms)]
        asked += [("settlement", "claimable", agent, table, k) for k in range(4)]
        asked += [("settlement", "claimed", terms, k) for k in range(4)]
        for host in HOSTS:
            for epoch in (0, 1):
                named = [ChannelKey(key(one).address, key(host).address, terms, epoch) for one in SIGNERS]
                asked += [("settlement", "channels", channel.id) for channel in named]
    return asked
