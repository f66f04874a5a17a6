"""The demo's accounts: what each party owns, read from the chain alone, and whether every wei is somewhere."""

import msgspec

from lading_contracts import events
from lading_contracts.deployment import Contracts
from lading_contracts.follower import Cursor, Follower
from lading_contracts.registry import Party
from lading_contracts.settlement import ChannelKey
from lading_protocol.ids import Address, AgentId, Digest, TermsId


class Estate(msgspec.Struct, frozen=True):
    """All that belongs to one address, in wei. `deposit` includes what is locked for hosts and not yet redeemed."""

    coins: int
    deposit: int
    earned: int
    royalties: int
    stake: int

    @property
    def total(self) -> int:
        return self.coins + self.deposit + self.earned + self.royalties + self.stake


class Holdings(msgspec.Struct, frozen=True):
    """What a contract holds, and what its books say that it must hold."""

    name: str
    held: int
    owed: int


class Books:
    """Everything that the contracts' events name: channels, terms, hosts, payers, operators."""

    def __init__(self, contracts: Contracts) -> None:
        self._contracts = contracts
        self.channels: dict[ChannelKey, Address] = {}
        self.terms: dict[TermsId, tuple[AgentId, tuple[Party, ...]]] = {}
        self.payers: set[Address] = set()
        self.sessions: dict[Address, Address] = {}
        self.hosts: set[Address] = set()
        self.operators: dict[Address, Address] = {}
        self.slashes: list[events.Slashed] = []
        self.rulings: list[events.Executed] = []
        self.batches: list[events.Redeemed] = []
        self.accused: dict[Digest, Address] = {}
        self.votes: list[events.Revealed] = []
        self._cursor = Cursor(start=contracts.deployment.block)

    async def read(self) -> None:
        """From the first block on, as anyone could; goes on where it left off."""
        follower = Follower(self._contracts.chain, self._contracts.deployment.names())
        while (batch := await follower.step(self._cursor)) is not None:
            self._cursor = batch.cursor
            for entry in batch.entries:
                self._note(entry.event)

    def _note(self, event: events.Event) -> None:
        match event:
            case events.TermsAgreed(id=terms, agent=agent, parties=parties):
                self.terms[terms] = (agent, parties)
            case events.Deposited(payer=payer):
                self.payers.add(payer)
            case events.Locked(signer=signer, host=host, terms=terms, epoch=epoch):
                payer = self.sessions.get(signer, signer)
                self.channels[ChannelKey(signer, host, terms, epoch)] = payer
                self.payers.add(payer)
            case events.Authorized(payer=payer, key=signer):
                self.sessions[signer] = payer
            case events.Redeemed(host=host):
                self.hosts.add(host)
                self.batches.append(event)
            case events.Staked(operator=operator, owner=owner):
                self.operators[operator] = owner
            case events.Slashed():
                self.slashes.append(event)
            case events.Opened(id=dispute, host=host):
                self.accused[dispute] = host
            case events.Revealed():
                self.votes.append(event)
            case events.Executed():
                self.rulings.append(event)
            case _:
                pass

    async def estate(self, who: Address) -> Estate:
        chain = self._contracts
        locked = 0
        for key, payer in self.channels.items():
            if payer == who:
                channel = await chain.settlement.channel(key)
                locked += 0 if channel.dead else channel.locked - channel.redeemed
        royalties = 0
        for agent, parties in self.terms.values():
            for k, party in enumerate(parties):
                if party.payee == who:
                    royalties += await chain.settlement.claimable(agent, parties, k)
        stake = 0
        for operator, owner in self.operators.items():
            if owner == who and (held := await chain.staking.operator(operator)):
                stake += held.stake + held.unbonding
        account = await chain.settlement.account(who)
        return Estate(
            coins=await chain.coin.balance(who),
            deposit=account.free + locked,
            earned=await chain.settlement.host_balance(who),
            royalties=royalties,
            stake=stake,
        )

    async def holdings(self) -> list[Holdings]:
        """For each contract that holds coins: its balance, and the sum of all claims on it."""
        chain, record = self._contracts, self._contracts.deployment
        owed = 0
        for payer in self.payers:
            owed += (await chain.settlement.account(payer)).free
        for key in self.channels:
            channel = await chain.settlement.channel(key)
            owed += 0 if channel.dead else channel.locked - channel.redeemed
        for agent, parties in self.terms.values():
            for k in range(len(parties)):
                owed += await chain.settlement.claimable(agent, parties, k)
        for host in self.hosts:
            owed += await chain.settlement.host_balance(host)
        staked = 0
        for operator in self.operators:
            if held := await chain.staking.operator(operator):
                staked += held.stake + held.unbonding
        # Whatever these took has been paid out again: bonds of disputes are closed, nobody bids here.
        idle = [
            ("AuditCourt", record.court),
            ("LineageCourt", record.lineage_court),
            ("ShareAuctions", record.share_auctions),
            ("PromotionAuctions", record.promotion_auctions),
            ("Leases", record.leases),
        ]
        return [
            Holdings("Settlement", await chain.coin.balance(record.settlement), owed),
            Holdings("Staking", await chain.coin.balance(record.staking), staked),
            *[Holdings(name, await chain.coin.balance(where), 0) for name, where in idle],
        ]
