"""A payer machine and a host machine wired together by hand: every message waits until the test lets it arrive.

The payer is lading_protocol.job, the host lading_node.core.session; tokens come from a scripted engine.
"""

from collections import deque

import msgspec

from factories import NOW, chat_request, job_id, key, known_offer, network
from lading_node.core import channel as channels
from lading_node.core.admission import Account, Facts
from lading_node.core.attempt import Session
from lading_node.core.channel import Channel, ChannelId
from lading_node.core.events import (
    Cancelled,
    Effect,
    EngineFinished,
    EngineRun,
    EngineStarted,
    Event,
    Gone,
    Hangup,
    Opened,
    Paid,
    PauseEngine,
    Persisted,
    PersistVoucher,
    Record,
    ResumeEngine,
    Send,
    SendReceipt,
    StartEngine,
    StopEngine,
    SubmitLock,
    Woken,
)
from lading_node.core.session import apply
from lading_protocol import VERSION, job
from lading_protocol.ids import TermsId, Wei
from lading_protocol.messages import Cancel, Chunk, Done, Open, Pay, ToHost, ToPayer
from lading_protocol.receipts import Finish, Lock, Receipt, Voucher
from lading_protocol.transcript import prompt_hash

HOST, PAYER = key("host"), key("payer")
NET = network()
TERMS = TermsId(b"\xbb" * 32)
PROMPT = (5, 6, 7)


class Play:
    """One attempt in flight between the two machines."""

    def __init__(self, world: "World", opening: Open, state: job.JobState) -> None:
        self.world = world
        self.session = Session(opening, HOST.address)
        self.state = state
        self.to_payer: deque[ToPayer] = deque()
        self.to_host: deque[ToHost] = deque([opening])
        self.unwritten: deque[Wei] = deque()
        self.effects: list[Effect] = []
        self.receipts: list[Receipt] = []
        self.made = 0
        self.engine = "idle"
        self.owed = 0
        self.promised = 0
        self.sent_tokens = 0
        self.record: Record | None = None
        self.hung_up = False
        self.delivered: list[int] = []

    # the host's side

    def feed(self, event: Event) -> None:
        step = apply(self.session, self.world.channel, event, self.world.now)
        self.session, self.world.channel = step.session, step.channel
        for effect in step.effects:
            self.perform(effect)

    def perform(self, effect: Effect) -> None:
        assert not self.hung_up, f"{effect} after the end"
        self.effects.append(effect)
        match effect:
            case Send(message):
                self.to_payer.append(message)
            case SendReceipt(receipt, marks):
                self.receipts.append(receipt)
                packed = receipt.sign(NET.court_domain, HOST).pack()
                last = receipt.finish != Finish.RUNNING
                self.to_payer.append(Done(packed, marks) if last else Chunk(packed, marks))
            case StartEngine():
                self.engine = "asked"
            case PauseEngine():
                assert self.engine == "on"
                self.engine = "paused"
            case ResumeEngine():
                assert self.engine == "paused" or self.engine == "stopping"
                self.engine = "on" if self.engine == "paused" else self.engine
            case StopEngine():
                self.engine = "stopping"
            case PersistVoucher(voucher):
                self.unwritten.append(Wei(voucher.value.cumulative))
            case SubmitLock():
                pass
            case Record():
                assert self.record is None
                self.record = effect
            case Hangup():
                self.hung_up = True

    def work(self, run: int = 1) -> None:
        """The engine makes its next step."""
        if self.engine == "asked":
            self.engine = "on"
            self.feed(EngineStarted(len(PROMPT), prompt_hash(PROMPT)))
        elif self.engine == "stopping":
            self.engine = "off"
            self.feed(EngineFinished(Finish.CANCELLED))
        elif self.engine == "on":
            left = self.session.opening.request.max_tokens - self.session.first - self.made
            if left == 0:
                self.engine = "off"
                self.feed(EngineFinished(Finish.LENGTH))
                return
            at = self.session.first + self.made
            ids = tuple(range(1000 + at, 1000 + at + min(run, left)))
            self.made += len(ids)
            self.feed(EngineRun(at, ids, "".join(f" {i}" for i in ids)))

    def write(self) -> None:
        """The ledger has written what waited."""
        while self.unwritten:
            self.feed(Persisted(self.unwritten.popleft()))
            self.world.wake()

    def arrive_at_host(self, **facts: object) -> None:
        message = self.to_host.popleft()
        match message:
            case Open():
                self.feed(Opened(self.world.facts(**facts)))
            case Pay(voucher):
                self.feed(Paid(voucher))
            case Cancel():
                self.feed(Cancelled())

    def cut(self) -> None:
        """The line breaks at both ends at once; what was under way is lost, what the ledger was given is not."""
        self.to_host.clear()
        self.to_payer.clear()
        self.feed(Gone())
        self.receive(job.LinkLost("cut"))

    # the payer's side

    def arrive_at_payer(self) -> None:
        self.receive(self.to_payer.popleft())

    def receive(self, event: job.Event) -> None:
        for effect in job.apply(self.state, event, NET.court_domain, self.world.now):
            match effect:
                case job.Deliver(first, ids, _):
                    assert first == self.session.first + len(self.delivered)
                    self.delivered += ids
                case job.Resume(code, reason, blame):
                    assert not blame, (code, reason)
                case _:
                    pass
        self.owed = job.owed(self.state)
        if isinstance(event, Chunk | Done) or self.state.attempt is None:
            self.pay()

    def pay(self) -> None:
        if self.world.honest and self.owed > self.promised:
            self.world.cumulative += self.owed - self.promised
            self.promised = self.owed
            self.to_host.append(Pay(self.world.voucher()))

    def settle(self) -> None:
        """Everything that can still happen happens; then the payer hangs up."""
        for _ in range(10_000):
            if self.to_host:
                self.arrive_at_host()
            elif self.unwritten:
                self.write()
            elif self.to_payer:
                self.arrive_at_payer()
            elif self.engine in ("asked", "on", "stopping") and not self.hung_up:
                self.work()
            else:
                break
        else:
            raise AssertionError("no end in sight")


class World:
    """One payer, one host, one channel. The payer pays as the rules say unless `honest` is False."""

    def __init__(self, credit: int = 64, locked: int = 10**12, price_in: int = 1_500, price_out: int = 2_300) -> None:
        self.now = NOW
        self.honest = True
        self.offer = known_offer(HOST, price_in=price_in, price_out=price_out, credit=credit, terms=TERMS)
        self.channel = Channel(ChannelId(PAYER.address, TERMS, 0), locked=Wei(locked))
        self.cumulative = 0
        self.plays: list[Play] = []
        self.account: Account | None = None

    def facts(self, **changes: object) -> Facts:
        base = Facts(
            host=HOST.address,
            settlement=NET.settlement_domain,
            now=self.now,
            offer=self.offer,
            free_slots=4,
            channel=self.channel,
            account=self.account,
        )
        return msgspec.structs.replace(base, **changes)

    def voucher(self, cumulative: int | None = None) -> bytes:
        wei = self.cumulative if cumulative is None else cumulative
        return Voucher(HOST.address, TERMS, 0, wei).sign(NET.settlement_domain, PAYER).pack()

    def lock(self, cumulative: int) -> bytes:
        return Lock(HOST.address, TERMS, 0, cumulative).sign(NET.settlement_domain, PAYER).pack()

    def open(self, max_tokens: int = 40, emitted: tuple[int, ...] = (), **changes: object) -> Play:
        request = chat_request(max_tokens=max_tokens)
        number = len(self.plays)
        spec = job.JobSpec(job_id(str(number)), request, PAYER.address)
        begun = job.start(spec, emitted)
        if emitted:
            begun.prompt_tokens, begun.prompt_hash = len(PROMPT), prompt_hash(PROMPT)
        state = job.begin_attempt(begun, self.offer, 0)
        opening = Open(
            version=VERSION,
            job=spec.job,
            attempt=0,
            offer=self.offer.id,
            signer=PAYER.address,
            epoch=0,
            request=request,
            emitted=emitted,
            voucher=self.voucher() if self.cumulative else b"",
        )
        play = Play(self, msgspec.structs.replace(opening, **changes), state)
        self.plays.append(play)
        return play

    def wake(self) -> None:
        for play in self.plays:
            if not play.session.over:
                play.feed(Woken())

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.wake()

    def exposure(self) -> int:
        return self.channel.earned - self.channel.signed

    def bound(self) -> int:
        return channels.allowances(self.channel) + self.channel.written
