"""Audits and juries between real nodes: a cheat is found and slashed, an honest host is not, restarts lose no vote."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from factories import chat_request, key
from lading.dispatch.dispatcher import Ended
from lading_contracts.court import Verdict
from lading_contracts.settlement import ChannelKey
from lading_net.clock import run_virtual
from lading_net.messages import MessageStream
from lading_net.ports import Link, Stream
from lading_net.sketches import receive_sketch, send_sketch
from lading_node.core.policy import Policy
from lading_node.node import Node
from lading_protocol.audit import seal
from lading_protocol.court import Phase
from lading_protocol.eip712 import unpack
from lading_protocol.ids import Digest, Wei
from lading_protocol.messages import (
    AUDIT,
    CASE,
    OPENING,
    Case,
    Check,
    Finding,
    FromAuditor,
    FromOpener,
    GetCase,
    GetOpening,
    Refuse,
    Reveal,
    Sealed,
    Sketch,
    Unopened,
)
from lading_protocol.receipts import Receipt
from simulation.node_world import COIN, Gateway, Sea

JURORS = ("juror1", "juror2", "juror3")
STAKE = 2000 * COIN
# What the operator key holds beside: the surety of its votes comes from it.
SPARE = 50 * COIN


def case_of(ended: Ended) -> Case:
    part = ended.parts[0]
    return Case(part.receipt, ended.request, ended.emitted, ended.vectors, b"".join(part.marks))


async def stake(sea: Sea, who: str) -> None:
    signer = key(who)
    await sea.contracts.coin.transfer(key("treasury"), signer.address, STAKE + SPARE)
    await sea.contracts.coin.allow(signer, sea.record.staking, STAKE)
    await sea.contracts.staking.stake(signer, signer.address, STAKE)


class Trial:
    """A gateway that challenges, one host that is accused, and three jurors."""

    def __init__(self, sea: Sea, folder: Path) -> None:
        self.sea = sea
        self.folder = folder
        self.gateway = Gateway(sea)
        self.nodes: dict[str, Node] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.shown = 0

    @classmethod
    async def begin(
        cls,
        folder: Path,
        host_seed: str,
        *,
        framers: tuple[str, ...] = (),
        host_bond: int = 0,
        host_folder: Path | None = None,
        **plan: object,
    ) -> "Trial":
        """`framers` run another model than the host's, and so find it guilty whatever it does."""
        trial = cls(await Sea.create(appeal_window=20), folder)
        await trial.sea.fund(trial.gateway.key)
        trial.gateway.transport.handle(CASE, trial.show)
        endpoint = (await trial.gateway.start(),)
        for name in ("host", *JURORS):
            await stake(trial.sea, name)
        await trial.up("host", endpoint, folder=host_folder, seed=host_seed, appeal_bond=Wei(host_bond))
        await trial.gateway.offers(1)
        await trial.gateway.ask(chat_request("Tell me of the sea.", max_tokens=60))
        for number, name in enumerate(JURORS):
            kept, seed = folder / name if name == "juror1" else None, "other" if name in framers else "toy"
            await trial.up(name, endpoint, folder=kept, rng=number, seed=seed, **plan)
        await trial.gateway.offers(4)
        return trial

    async def up(self, name: str, endpoint: tuple[str, ...], **more: object) -> None:
        node = self.nodes[name] = self.sea.node(name, coordinators=endpoint, **more)  # type: ignore[arg-type]
        self.tasks[name] = asyncio.get_running_loop().create_task(node.run())
        await node.started.wait()

    async def kill(self, name: str) -> None:
        self.sea.network.kill(self.nodes[name].address)
        self.tasks[name].cancel()
        await asyncio.gather(self.tasks[name], return_exceptions=True)
        await self.nodes[name].doors.ledger.close()

    async def end(self) -> None:
        for name, node in self.nodes.items():
            node.stop()
            await self.tasks[name]
            await node.doors.ledger.close()

    async def accuse(self) -> Digest:
        court, gateway = self.sea.contracts.court, self.gateway
        receipt = unpack(Receipt, gateway.ended[0].parts[0].receipt)
        await self.sea.contracts.coin.transfer(key("treasury"), gateway.key.address, 1000 * COIN)
        await self.sea.contracts.coin.allow(gateway.key, self.sea.record.court, 1000 * COIN)
        dispute = await court.open(gateway.key, receipt)
        await asyncio.sleep(10)
        await court.draw(gateway.key, dispute)
        return dispute

    async def show(self, stream: Stream) -> None:
        messages: MessageStream[GetCase] = MessageStream(stream, msgspec.msgpack.Decoder(GetCase))
        if await messages.recv() is not None:
            self.shown += 1
            messages.send(case_of(self.gateway.ended[0]))
            await send_sketch(messages, await self.opening())

    def link(self, who: str) -> Link:
        return next(link for link in self.gateway.transport.links() if link.peer == key(who).address)

    async def opening(self) -> bytes:
        """What the host shows of the first job to the gateway that brought it."""
        part = self.gateway.ended[0].parts[0]
        receipt = unpack(Receipt, part.receipt).value
        messages: MessageStream[FromOpener] = MessageStream(
            await self.link("host").open(OPENING), msgspec.msgpack.Decoder(FromOpener)
        )
        messages.send(GetOpening(receipt.job, receipt.attempt))
        first = await messages.recv()
        assert isinstance(first, Sketch)
        size = 32 * (receipt.prompt_tokens + receipt.output_tokens - 1)
        return await receive_sketch(messages, first, size)

    async def check(self, case: Case, auditor: str, opened: bytes | None = None) -> Finding | Refuse:
        """One case put to an auditor; what it shows at the end must be what it sealed."""
        messages: MessageStream[FromAuditor] = MessageStream(
            await self.link(auditor).open(AUDIT), msgspec.msgpack.Decoder(FromAuditor)
        )
        messages.send(Check(case))
        sealed = await messages.recv()
        if isinstance(sealed, Refuse):
            return sealed
        assert isinstance(sealed, Sealed)
        if opened is None:
            messages.send(Unopened("not now"))
        else:
            await send_sketch(messages, opened)
        finding, reveal, first = [await messages.recv() for _ in range(3)]
        assert isinstance(finding, Finding)
        assert isinstance(reveal, Reveal)
        assert isinstance(first, Sketch)
        assert seal(reveal.salt, finding.receipt, reveal.margins, first.data) == sealed.digest
        await messages.close()
        return finding


@pytest.mark.parametrize(("seed", "verdict"), [("toy", Verdict.HONEST), ("smaller", Verdict.GUILTY)])
def test_the_jury_finds_what_is_true_and_finishes_the_case(tmp_path: Path, seed: str, verdict: Verdict) -> None:
    async def main() -> None:
        trial = await Trial.begin(tmp_path, seed)
        before = await trial.sea.contracts.staking.operator(key("host").address)
        dispute = await trial.accuse()
        await asyncio.sleep(120)
        found = await trial.sea.contracts.court.dispute(dispute)
        assert found is not None
        assert (found.phase, found.verdict) == (Phase.CLOSED, verdict)
        assert trial.shown == 3
        after = await trial.sea.contracts.staking.operator(key("host").address)
        assert before is not None
        assert after is not None
        assert (after.stake < before.stake) == (verdict is Verdict.GUILTY)
        assert all(not node.juror.duties for node in trial.nodes.values())
        assert trial.nodes["host"].standing.disputes
        await trial.end()

    run_virtual(main())


def test_a_juror_killed_between_commit_and_reveal_still_reveals(tmp_path: Path) -> None:
    async def main() -> None:
        trial = await Trial.begin(tmp_path, "smaller")
        dispute = await trial.accuse()
        court = trial.sea.contracts.court
        drawn = await court.dispute(dispute)
        assert drawn is not None
        async with asyncio.timeout(20):
            while not any((await court.vote(dispute, drawn.round, key("juror1").address)).commitment):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        await trial.kill("juror1")
        # as if it had died before it could write down that the commit went through
        ledger = trial.sea.ledger(key("juror1"), trial.folder / "juror1")
        (cast,) = await ledger.votes()
        await ledger.put_vote(msgspec.structs.replace(cast, stage="decided"))
        await ledger.close()
        await asyncio.sleep(1)
        await trial.up("juror1", (trial.gateway.endpoint,), folder=trial.folder / "juror1", rng=99)
        await asyncio.sleep(120)
        vote = await court.vote(dispute, drawn.round, key("juror1").address)
        assert vote.verdict is Verdict.GUILTY
        await trial.end()

    run_virtual(main())


def test_one_honest_juror_of_three_brings_seven_and_is_paid(tmp_path: Path) -> None:
    """Two of three frame a host whose key holds no bond. The third waits for it in vain and appeals itself."""

    async def main() -> None:
        framers = ("juror2", "juror3")
        trial = await Trial.begin(tmp_path, "toy", framers=framers, appeal_bond=Wei(400 * COIN))
        sea, court, coin = trial.sea, trial.sea.contracts.court, trial.sea.contracts.coin
        bond = (await court.params()).bond
        await coin.transfer(key("treasury"), key("juror1").address, 2 * bond)
        dispute = await trial.accuse()
        for name in (f"honest{n}" for n in range(5)):
            await stake(sea, name)
            await trial.up(name, (trial.gateway.endpoint,))
        async with asyncio.timeout(60):
            while (found := await court.dispute(dispute)) is None or not found.appeals:  # noqa: ASYNC110
                await asyncio.sleep(0.5)
        assert await coin.balance(key("juror1").address) < 2 * bond
        await asyncio.sleep(6)
        await court.draw(trial.gateway.key, dispute)
        assert len(await court.jurors(dispute, found.round)) == 7
        await asyncio.sleep(120)
        found = await court.dispute(dispute)
        assert found is not None
        assert (found.phase, found.verdict, found.honest) == (Phase.CLOSED, Verdict.HONEST, 5)
        deposit = (await court.params()).vote_deposit
        assert await court.surety_of(key("juror1").address) == 3 * deposit, "its vote was right"
        for name in framers:
            lost = 3 * deposit - await court.surety_of(key(name).address)
            assert lost == 2 * deposit, "outvoted in both rounds"
        assert await coin.balance(key("juror1").address) > 2 * bond + bond // 2
        host = await sea.contracts.staking.operator(key("host").address)
        assert host is not None
        assert host.stake == STAKE
        await trial.end()

    run_virtual(main())


def test_a_host_appeals_its_conviction_with_what_its_key_holds(tmp_path: Path) -> None:
    async def main() -> None:
        trial = await Trial.begin(tmp_path, "smaller", host_bond=200 * COIN)
        court, coin = trial.sea.contracts.court, trial.sea.contracts.coin
        await coin.transfer(key("treasury"), key("host").address, 200 * COIN)
        dispute = await trial.accuse()
        async with asyncio.timeout(60):
            while (found := await court.dispute(dispute)) is None or not found.appeals:  # noqa: ASYNC110
                await asyncio.sleep(0.5)
        await asyncio.sleep(6)
        await court.draw(trial.gateway.key, dispute)
        await asyncio.sleep(120)
        found = await court.dispute(dispute)
        assert found is not None
        assert (found.phase, found.verdict, found.appeals) == (Phase.CLOSED, Verdict.GUILTY, 1)
        assert await coin.balance(key("host").address) <= SPARE, "the cheat's bond is gone"
        await trial.end()

    run_virtual(main())


def test_a_host_that_is_restarted_appeals_the_conviction_that_it_had_heard_of(tmp_path: Path) -> None:
    """Its key was empty; by the time that coins are there it has been started anew, and the ruling lies behind it."""

    async def main() -> None:
        trial = await Trial.begin(tmp_path, "smaller", host_bond=200 * COIN, host_folder=tmp_path / "host")
        court, coin, host = trial.sea.contracts.court, trial.sea.contracts.coin, key("host")
        dispute = await trial.accuse()
        async with asyncio.timeout(60):
            while (found := await court.dispute(dispute)) is None or found.phase is not Phase.RULED:  # noqa: ASYNC110
                await asyncio.sleep(0.5)
        await asyncio.sleep(5)
        await trial.kill("host")
        await coin.transfer(key("treasury"), host.address, 200 * COIN)
        endpoint = (trial.gateway.endpoint,)
        await trial.up("host", endpoint, folder=tmp_path / "host", seed="smaller", appeal_bond=Wei(200 * COIN))
        await asyncio.sleep(8)
        found = await court.dispute(dispute)
        assert found is not None
        assert found.appeals == 1
        await trial.end()

    run_virtual(main())


def test_a_host_whose_key_is_empty_appeals_as_soon_as_coins_are_there(tmp_path: Path) -> None:
    async def main() -> None:
        trial = await Trial.begin(tmp_path, "smaller", host_bond=200 * COIN)
        court, coin = trial.sea.contracts.court, trial.sea.contracts.coin
        dispute = await trial.accuse()
        async with asyncio.timeout(60):
            while (found := await court.dispute(dispute)) is None or found.phase is not Phase.RULED:  # noqa: ASYNC110
                await asyncio.sleep(0.5)
        await asyncio.sleep(5)
        await coin.transfer(key("treasury"), key("host").address, 200 * COIN)
        await asyncio.sleep(10)
        found = await court.dispute(dispute)
        assert found is not None
        assert found.appeals == 1
        await trial.end()

    run_virtual(main())


@pytest.mark.parametrize("later", [0.0, 0.5, 1.0, 2.0, 3.0])
def test_a_vote_and_an_appeal_at_once_do_not_take_each_other_s_allowance(tmp_path: Path, later: float) -> None:
    async def main() -> None:
        trial = await Trial.begin(tmp_path, "smaller", host_bond=200 * COIN)
        court, coin, bonds = trial.sea.contracts.court, trial.sea.contracts.coin, trial.nodes["host"].bonds
        dispute = await trial.accuse()
        async with asyncio.timeout(60):
            while (found := await court.dispute(dispute)) is None or found.phase is not Phase.RULED:  # noqa: ASYNC110
                await asyncio.sleep(0.5)
        await coin.transfer(key("treasury"), key("host").address, 200 * COIN)

        async def votes() -> None:
            await asyncio.sleep(later)
            await bonds.ready(dispute)

        async def appeals() -> None:
            if not (now := await court.dispute(dispute)) or not now.appeals:
                await bonds.appeal(dispute, found)

        await asyncio.gather(votes(), appeals())
        now = await court.dispute(dispute)
        assert now is not None
        assert now.appeals == 1
        assert await court.surety_of(key("host").address) > 0
        await trial.end()

    run_virtual(main())


def test_without_coins_a_juror_says_why_it_does_not_vote(tmp_path: Path) -> None:
    async def main() -> None:
        trial = await Trial.begin(tmp_path, "toy")
        coin, juror = trial.sea.contracts.coin, key("juror2")
        await coin.transfer(juror, key("treasury").address, await coin.balance(juror.address) - 9 * COIN)
        dispute = await trial.accuse()
        await asyncio.sleep(10)
        (duty,) = trial.nodes["juror2"].juror.duties.values()
        assert "takes a surety of 10" in duty.note
        await coin.transfer(key("treasury"), juror.address, COIN)
        await asyncio.sleep(120)
        found = await trial.sea.contracts.court.dispute(dispute)
        assert found is not None
        assert (found.phase, found.verdict, found.honest) == (Phase.CLOSED, Verdict.HONEST, 3)
        await trial.end()

    run_virtual(main())


def test_audits_on_demand(tmp_path: Path) -> None:
    async def main() -> None:
        trial = await Trial.begin(tmp_path, "smaller")
        ended = trial.gateway.ended[0]
        found = await trial.check(case_of(ended), "juror1")
        assert isinstance(found, Finding)
        assert (found.verdict, found.code) == (Verdict.GUILTY, "margin")
        same = await trial.check(case_of(ended), "host")  # the cheat itself sees nothing wrong
        assert isinstance(same, Finding)
        assert same.verdict == Verdict.HONEST
        assert same.chunk == 0
        opened = await trial.opening()
        shown = await trial.check(case_of(ended), "juror1", opened)
        assert isinstance(shown, Finding)
        assert (shown.verdict, shown.code) == (Verdict.GUILTY, "prompt")
        assert shown.prompt > 0.5
        # what the receipt does not commit to may have been altered by whoever passes it on: the tokens alone count
        other = await trial.check(case_of(ended), "juror1", bytes(len(opened)))
        assert isinstance(other, Finding)
        assert other.code == "margin"
        bare = await trial.check(msgspec.structs.replace(case_of(ended), marks=b""), "juror1")
        assert isinstance(bare, Refuse)
        altered = msgspec.structs.replace(case_of(ended), emitted=(*ended.emitted[:-1], 3))
        refused = await trial.check(altered, "juror1")
        assert isinstance(refused, Refuse)
        assert refused.code == "case_mismatch"
        forged = case_of(ended)
        forged = msgspec.structs.replace(forged, receipt=forged.receipt[:-2] + b"\x01\x1b")
        refused = await trial.check(forged, "juror1")
        assert isinstance(refused, Refuse)
        await trial.end()

    run_virtual(main())


def test_a_close_notice_makes_the_host_redeem_in_time() -> None:
    async def main() -> None:
        sea = await Sea.create()
        gateway = Gateway(sea)
        await sea.fund(gateway.key)
        node = sea.node("host", coordinators=(await gateway.start(),), policy=Policy(Wei(10**30), 10**9))
        task = asyncio.get_running_loop().create_task(node.run())
        await node.started.wait()
        await gateway.offers(1)
        await gateway.ask()
        await asyncio.sleep(20)
        where = ChannelKey(gateway.key.address, node.address, sea.terms)
        settlement = sea.contracts.settlement
        assert (await settlement.channel(where)).redeemed == 0
        await settlement.start_close(gateway.key, where)
        await asyncio.sleep(4)  # the notice is 5 s long on this network
        assert (await settlement.channel(where)).redeemed == gateway.ended[0].cost
        with pytest.raises(Exception, match="closing"):
            await gateway.ask(chat_request("once more"))
        node.stop()
        await task

    run_virtual(main())
