"""A consumer's whole stay: a key, a deposit, a session, answers both ways with one bill, receipts, and the way out."""

import json
import os
import stat
import time
from pathlib import Path
from typing import Any

import pytest

from integration.cli.quay import CHAT, STORY, Quay, call, spawn
from lading import Client
from lading.answers import Bill, Delta
from lading.core.options import Options
from lading_contracts import deployment as deployments
from lading_protocol.errors import LadingError
from lading_protocol.keys import PrivateKey

MESSAGES: Any = [{"role": "user", "content": STORY}]
SUM = "What is 3 plus 4?"


@pytest.fixture(scope="module")
def home(quay: Quay) -> Path:
    return quay.consumer("a consumer", deposit="10")


@pytest.fixture(scope="module")
def api_key(quay: Quay, home: Path) -> str:
    return str(quay.session(home)["api_key"])


async def peer_client(quay: Quay, home: Path) -> Client:
    record = deployments.load(quay.theatre.deployment)
    key = PrivateKey.from_hex((home / "key").read_text())
    return await Client.peer_to_peer(record, quay.theatre.chain_url, key, [quay.theatre.direct], home)


async def whole(client: Client, prompt: str, options: Options) -> tuple[str, Bill]:
    text, bill = "", None
    async for piece in client.chat(CHAT, prompt, options):
        if isinstance(piece, Delta):
            text += piece.text
        elif isinstance(piece, Bill):
            bill = piece
    assert bill is not None
    return text, bill


def test_the_same_calls_give_the_same_answer_and_bill_both_ways(quay: Quay, home: Path, api_key: str) -> None:
    async def ask() -> list[tuple[str, Bill]]:
        answers = []
        async with Client.through(quay.theatre.http, api_key) as one, await peer_client(quay, home) as other:
            assert await one.models() == await other.models()
            for client in (one, other):
                answers.append(await whole(client, STORY, Options(max_tokens=70, seed=11, temperature=0.9, top_p=0.95)))
        return answers

    (text, bill), (again, second) = quay.run(ask())
    assert text == again
    assert len(text) > 40
    assert (bill.finish, bill.prompt_tokens, bill.output_tokens) == (
        second.finish,
        second.prompt_tokens,
        second.output_tokens,
    )
    # 0.20 and 0.60 LADE per 1,000 tokens, or 0.21 and 0.61 where the lot fell on the other node; rounded up once
    prices = [(20, 60), (21, 61)]
    bound = [-(-(10**16 * (i * bill.prompt_tokens + o * bill.output_tokens)) // 1000) for i, o in prices]
    assert {bill.cost, second.cost} <= set(bound)
    assert (bill.cost == second.cost) == (bill.hosts == second.hosts)
    assert bill.job != second.job


PAIR = {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 99}, "minItems": 2, "maxItems": 2}
SHAPED = Options(
    60,
    0.8,
    0.95,
    seed=3,
    top_k=400,
    min_p=0.001,
    presence_penalty=0.4,
    frequency_penalty=0.2,
    repetition_penalty=1.1,
    logit_bias={7: 1.5, 3: -100},
)
FIXED = Options(60, 0.0, response_format={"type": "json_schema", "json_schema": {"name": "pair", "schema": PAIR}})


@pytest.mark.parametrize("options", [SHAPED, FIXED])
def test_every_setting_means_the_same_both_ways(quay: Quay, home: Path, api_key: str, options: Options) -> None:
    async def ask() -> list[tuple[str, Bill]]:
        async with Client.through(quay.theatre.http, api_key) as one, await peer_client(quay, home) as other:
            return [await whole(client, STORY, options) for client in (one, other)]

    (text, bill), (again, second) = quay.run(ask())
    assert text == again
    assert (bill.finish, bill.output_tokens) == (second.finish, second.output_tokens)
    if options is FIXED:
        assert bill.finish == "stop"
        assert len(json.loads(text)) == 2


def test_a_setting_out_of_range_is_named_both_ways(quay: Quay, home: Path, api_key: str) -> None:
    odd = {"type": "json_schema", "json_schema": {"name": "odd", "schema": {"type": "string", "pattern": "a"}}}
    cases = ((Options(presence_penalty=3), "presence_penalty"), (Options(response_format=odd), "pattern"))

    async def ask() -> None:
        async with Client.through(quay.theatre.http, api_key) as one, await peer_client(quay, home) as other:
            for client in (one, other):
                for options, word in (*cases, (Options(logit_bias={1: 200}), "logit_bias")):
                    with pytest.raises(LadingError, match=word):
                        await whole(client, "hello", options)

    quay.run(ask())


def test_run_takes_the_flags_of_the_sampler(quay: Quay, home: Path, api_key: str, tmp_path: Path) -> None:
    schema = tmp_path / "pair.json"
    schema.write_text(json.dumps(PAIR))
    where = (*quay.through, "--api-key", api_key)
    told = call("run", CHAT, SUM, "--temperature", 0, "--schema", schema, *where)
    assert told.code == 0
    assert len(json.loads(told.out)) == 2
    flags = ("--top-k", 50, "--min-p", 0.01, "--repetition-penalty", 1.2, "--logit-bias", "5=-100", "--stop", "7")
    assert call("run", CHAT, SUM, *flags, *where).code == 0
    for wrong in (("--logit-bias", "five"), ("--schema", tmp_path / "none"), ("--schema", schema, "--json-answer")):
        refused = call("run", CHAT, SUM, *wrong, *where)
        assert refused.code != 0
        assert wrong[0].strip("-") in refused.err.replace("JSON Schema", "schema")


def test_one_error_for_one_mistake_both_ways(quay: Quay, home: Path, api_key: str) -> None:
    async def codes(client: Client) -> list[str]:
        found = []
        for model, prompt in (("no-such-model", "hello"), (CHAT, "word " * 4000)):
            with pytest.raises(LadingError) as caught:
                async for _ in client.chat(model, prompt, Options(max_tokens=8)):
                    pass
            found.append(caught.value.code)
        return found

    async def ask() -> list[list[str]]:
        async with Client.through(quay.theatre.http, api_key) as one, await peer_client(quay, home) as other:
            return [await codes(one), await codes(other)]

    assert quay.run(ask()) == [["model_not_found", "context_length_exceeded"]] * 2


def test_run_and_models_both_ways(quay: Quay, home: Path, api_key: str) -> None:
    flags = (CHAT, SUM, "--temperature", 0)
    through = call("run", *flags, *quay.through, "--api-key", api_key)
    straight = call("run", *flags, *quay.peers(home))
    assert through.code == straight.code == 0
    assert through.out == straight.out == "3 plus 4 is 7.\n"
    assert "LADE" in through.err
    told = call("run", *flags, *quay.through, "--api-key", api_key, "--json").tree
    assert told["text"] + "\n" == through.out
    assert told["usage"]["completion_tokens"] == 9
    # The second host's price is near enough to the first one's that the lot decides.
    prompt = told["usage"]["prompt_tokens"]
    assert int(told["cost_wei"]) in (10**13 * (20 * prompt + 60 * 9), 10**13 * (21 * prompt + 61 * 9))
    listed = call("models", *quay.through, "--json").tree
    assert listed == call("models", *quay.peers(home), "--json").tree
    shown = [(m["name"], m["agent"], m["hosts"], m["price_out"]) for m in listed]
    assert (CHAT, quay.agent, 2, str(6 * 10**17)) in shown
    assert CHAT in call("models", *quay.through).out


def test_the_prompt_may_come_through_a_pipe_and_the_reader_may_leave(quay: Quay, api_key: str) -> None:
    flags = ("run", CHAT, "--temperature", 0, *quay.through, "--api-key", api_key)
    assert spawn(*flags, input=SUM).out == "3 plus 4 is 7.\n"
    reader, writer = os.pipe()
    os.close(reader)
    try:
        gone = spawn("models", *quay.through, stdout=writer)
    finally:
        os.close(writer)
    assert (gone.code, gone.err) == (1, "")


def test_the_openai_package_streams_and_answers_whole(quay: Quay, api_key: str) -> None:
    with quay.openai(api_key) as client:
        made = client.chat.completions.create(model=CHAT, messages=MESSAGES, seed=3, max_tokens=50)
        chunks = list(
            client.chat.completions.create(
                model=CHAT,
                messages=MESSAGES,
                seed=3,
                max_tokens=50,
                stream=True,
                stream_options={"include_usage": True},
            )
        )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == made.choices[0].message.content
    assert chunks[-1].usage == made.usage
    bills: list[Any] = [(answer.model_extra or {})["lading"] for answer in (made, chunks[-1])]
    assert bills[0]["cost_wei"] == bills[1]["cost_wei"]
    assert [part["tokens"] for part in bills[0]["parts"]] == [made.usage.completion_tokens if made.usage else 0]


def test_what_was_promised_is_the_sum_of_the_bills(quay: Quay, home: Path) -> None:
    """A session of its own, so that nothing else is on it."""
    api_key = quay.session(home)["api_key"]
    with quay.openai(api_key) as client:
        bills: list[Any] = [
            (client.chat.completions.create(model=CHAT, messages=MESSAGES, max_tokens=n).model_extra or {})["lading"][
                "cost_wei"
            ]
            for n in (1, 33, 7)
        ]
    seat = quay.seat(api_key)
    total = sum(map(int, bills))
    assert int(seat["spent"]["wei"]) == total
    assert sum(int(channel["promised"]["wei"]) for channel in seat["channels"]) == total


@pytest.mark.parametrize("way", ["through", "peers"])
def test_receipts_of_an_answer_verify_offline(quay: Quay, home: Path, api_key: str, tmp_path: Path, way: str) -> None:
    where = (*quay.through, "--api-key", api_key) if way == "through" else quay.peers(home)
    file = tmp_path / "receipts.json"
    told = call("run", CHAT, STORY, "--max-tokens", 40, "--receipt", file, "--json", *where).tree
    record = ("--deployment", quay.theatre.deployment)
    found = call("receipt", "verify", file, *record, "--json").tree
    assert found["holds"] is True
    assert found["amount_wei"] == told["cost_wei"]
    (receipt,) = found["receipts"]
    assert (receipt["job"], receipt["agent"], receipt["host"]) == (told["job"], quay.agent, told["hosts"][0])
    assert receipt["output_tokens"] == told["usage"]["completion_tokens"]
    assert receipt["ids_compared"] is (way == "peers")
    assert "yes" in call("receipt", "verify", file, *record).out
    assert call("run", CHAT, STORY, "--receipt", file, *where, "--json").error["code"] == "bad_settings"
    tree = json.loads(file.read_text())
    hexed = tree["receipts"][0]
    at = hexed.index(f"{receipt['output_tokens']:064x}") + 63
    tree["receipts"][0] = hexed[:at] + ("0" if hexed[at] != "0" else "1") + hexed[at + 1 :]
    file.write_text(json.dumps(tree))
    tampered = call("receipt", "verify", file, *record, "--json")
    assert tampered.code == 1
    assert tampered.error["code"] == "bad_receipt"
    assert "not signed by its host" in tampered.error["message"]


def test_a_wallet_from_nothing_to_nothing(quay: Quay, tmp_path: Path) -> None:
    """A key of one's own, coins, a deposit, a session that is revoked, and the deposit taken out again."""
    home = tmp_path / "home"
    made = call("wallet", "new", "--home", home, "--json").tree
    assert stat.S_IMODE((home / "key").stat().st_mode) == 0o600
    assert call("wallet", "new", "--home", home, "--json").error["code"] == "bad_settings"
    here = ("--home", home, *quay.network, "--json")
    poor = call("wallet", "deposit", "1", *here)
    assert (poor.code, poor.error["code"]) == (4, "no_gas_funds")
    assert call("chain", "faucet", made["address"], "--coins", "7", "--seed", "demo", *quay.network).code == 0
    too_much = call("wallet", "deposit", "8", *here)
    assert (too_much.code, too_much.error["code"]) == (4, "reverted")
    assert call("wallet", "deposit", "5.5", *here).tree["free_deposit"] == str(55 * 10**17)
    shown = call("wallet", "balance", *here).tree
    assert (shown["coins"], shown["free_deposit"], shown["leaving"]) == (str(15 * 10**17), str(55 * 10**17), "0")
    granted = quay.session(home, cap="1")
    ask = ("run", CHAT, SUM, "--max-tokens", 4, *quay.through, "--api-key", granted["api_key"], "--json")
    assert call(*ask).code == 0
    assert call("wallet", "revoke", granted["session"], *here).code == 0
    quay.until_state(granted["api_key"], "session_revoked")
    refused = call(*ask)
    assert (refused.code, refused.error["code"]) == (4, "session_revoked")
    free = int(call("wallet", "balance", *here).tree["free_deposit"])
    amount = f"{free // 10**18}"
    leaving = call("wallet", "withdraw", amount, *here).tree
    assert leaving["leaving"] == str(int(amount) * 10**18)
    early = call("wallet", "withdraw", "--finish", *here)
    assert (early.code, early.error["code"]) == (4, "reverted")
    assert early.error["hint"]
    deadline = time.monotonic() + 20
    while (ended := call("wallet", "withdraw", "--finish", *here)).code and time.monotonic() < deadline:
        time.sleep(0.3)
    assert ended.tree["leaving"] == "0"
    after = call("wallet", "balance", *here).tree
    assert int(after["coins"]) == int(shown["coins"]) + int(amount) * 10**18
