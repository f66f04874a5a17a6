"""client/js under the unmodified `openai` package of npm: answers go on at another gateway, also when the first lies.

Gateways are processes, of which one gets SIGKILL in the middle of answers; or sockets that speak the bytes that they
are told to. The rules are held together with those in Python by giving both the same streams.
"""

import asyncio
import base64
import json
import os
import random
import subprocess
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec

from factories import receipt as make_receipt
from integration.coordinator.test_gateway_killed import FORMS, Gate, check_paid, facts, plain, two
from integration.coordinator.test_hostile_gateways import (
    BAD,
    ELDER,
    EMBEDS,
    NO_VECTORS,
    WORDS,
    Mode,
    another_program,
    gates,
    honest,
    refuses,
)
from integration.coordinator.test_openai_js import FOLDER, installed
from lading.core.continued import Continued, Rest, Told, line
from lading.core.receipts import check, check_job
from lading_contracts.deployment import decode
from lading_protocol.eip712 import unpack
from lading_protocol.ids import from_hex, to_hex
from lading_protocol.messages import Chance
from lading_protocol.receipts import Receipt
from tools import require_program
from unit.client.test_continued import HEAD, LIES, event, stream

SEED = int(os.environ.get("LADING_SEED", "1"))
CASES = 300
ROOT = Path(__file__).parents[3]


async def node(script: str, given: Any, heard: Callable[[], None] = lambda: None) -> Any:
    """What a script printed last, of lines that say `heard` before."""
    process = await asyncio.create_subprocess_exec(
        "node", script, json.dumps(given), cwd=FOLDER, stdout=-1, stderr=-1, limit=1 << 24
    )
    assert process.stdout is not None
    assert process.stderr is not None
    last = b""
    while said := await asyncio.wait_for(process.stdout.readline(), 60):
        if said == b"heard\n":
            heard()
        else:
            last = said
    errors = await process.stderr.read()
    assert await process.wait() == 0, errors.decode()[-3000:]
    return json.loads(last)


def ask(*gateways: Gate, asked: list[tuple[str, bool]]) -> dict[str, Any]:
    """For resumed.mjs: each form, as a stream or whole."""
    bodies = []
    for form, streams in asked:
        where, body = FORMS[form]
        body = {"model": "storyteller", "seed": 7, **body, "stream": streams}
        if not streams:
            body.pop("stream_options", None)
        bodies.append({"where": where, "body": body})
    return {"gateways": [{"baseURL": one.url, "apiKey": one.api_key} for one in gateways], "asked": bodies}


def test_the_package_goes_on_at_another_gateway(tmp_path: Path) -> None:
    """Every form at once, streamed and whole, and one kill somewhere in the middle of them."""
    installed()
    rng = random.Random(SEED)
    asked = [(form, streams) for form in sorted(FORMS, key=lambda one: one != "chat") for streams in (True, False)]
    events = rng.randrange(1, 20 * len(asked))

    async def story() -> None:
        async with two(tmp_path) as made:
            last, first = await made.open(2)
            whole = (await node("resumed.mjs", ask(last, asked=asked)))["heard"]
            await asyncio.sleep(0.2)  # its last vouchers are on the disk
            before, heard = last.promised(), first.dies_after(events)
            found = await node("resumed.mjs", ask(first, last, asked=asked), heard)
            await asyncio.wait_for(first.process.wait(), 5)
            for form, answer, undisturbed in zip(asked, found["heard"], whole, strict=True):
                assert plain(answer) == plain(undisturbed), (form, events)
                assert facts(answer)["cost_wei"] == facts(undisturbed)["cost_wei"], (form, events)
            assert {one["url"] for one in found["moves"]} == {last.url}
            await asyncio.sleep(0.2)
            told = sum(int(facts(answer)["cost_wei"]) for answer in found["heard"])
            check_paid(first, told, last.promised() - before, 2 * len(asked))
            check_receipts(first, found["receipts"], facts(found["heard"][0]))

    asyncio.run(story())


def check_receipts(gate: Gate, proof: dict[str, Any], told: dict[str, Any]) -> None:
    """What hosts signed through both gateways verifies offline as one answer."""
    domain = decode(gate.told["record"].encode()).court_domain
    signed = [unpack(Receipt, bytes.fromhex(one[2:])) for one in proof["receipts"]]
    assert not any(check(one, domain, proof["ids"]).faults for one in signed)
    assert check_job([one.value for one in signed], [from_hex(one, 32) for one in proof["jobs"]]) == ()
    assert proof["job"] == told["job"]
    assert 0 < sum(one.value.amount for one in signed) <= int(told["cost_wei"])


async def among(rows: dict[str, tuple[Mode, ...]], *, vectors: bool = False) -> dict[str, Any]:
    """What comes out of each row of gateways."""
    limits = {"quiet": 1500, "probe": 1500, "stuck": 500, "reconnect": 2000}
    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(gates(*modes)) for modes in rows.values()]
        urls = [urls for urls, _ in opened]
        found = await node("among.mjs", {"rows": urls, "limits": limits, "vectors": vectors})
    return dict(zip(rows, found, strict=True))


def test_what_was_said_is_kept_and_another_goes_on() -> None:
    installed()
    rows: dict[str, tuple[Mode, ...]] = {
        **{name: (bad, honest) for name, bad in BAD.items()},
        "all of these": (BAD["breaks off"], another_program, refuses, BAD["leaves one out"], honest),
        "a refusal": (refuses, honest),
        "another program": (another_program,),
        "only one that breaks off": (BAD["breaks off"],),
        "an older one": (ELDER,),
        "an older one in between": (BAD["breaks off"], ELDER, honest),
    }
    found = asyncio.run(among(rows))
    for bad in BAD:
        there = 1 if bad.startswith("never") else 3
        assert found[bad]["text"] == "".join(WORDS), (bad, found[bad])
        assert len(found[bad]["moves"]) == 1, (bad, found[bad])
        assert int(found[bad]["cost"]) == 1000 + there - 1 + 1000 * (6 - there), bad
    assert found["all of these"]["text"] == "".join(WORDS)
    assert len(found["all of these"]["moves"]) == 4
    assert found["a refusal"]["error"]["kind"] == "AuthenticationError"
    assert found["another program"]["error"]["kind"] == "APIConnectionError"
    assert (found["an older one"]["text"], found["an older one"]["moves"]) == ("".join(WORDS), [])
    assert found["an older one in between"]["text"] == "".join(WORDS)
    broken = found["only one that breaks off"]
    assert (broken["text"], "broke off" in broken["error"]["message"]) == ("".join(WORDS[:3]), True)


def test_an_embedding_that_did_not_come_is_asked_for_elsewhere() -> None:
    installed()
    found = asyncio.run(among({name: (bad, EMBEDS) for name, bad in NO_VECTORS.items()}, vectors=True))
    for bad, one in found.items():
        assert one.get("vector") == [0.5, -1.0], (bad, one)
        assert len(one["moves"]) == 1, (bad, one)


def test_the_module_is_found_under_the_name_that_the_pages_give() -> None:
    require_program("node")
    script = (
        'import { fetchThrough } from "lading/openai"; try { fetchThrough([]) } catch (e) { console.log(e.message) }'
    )
    command = ("node", "--input-type=module", "--eval", script)
    done = subprocess.run(command, cwd=ROOT / "client/js", capture_output=True, text=True, check=False)
    assert done.stdout == "Name at least one coordinator.\n", done.stderr


def test_both_languages_make_the_same_of_whatever_comes() -> None:
    require_program("node")
    rng = random.Random(SEED)
    cases = [case(rng) for _ in range(CASES)]
    done = subprocess.run(
        ("node", "continued.mjs"), cwd=FOLDER, input=json.dumps(cases), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for at, (given, found) in enumerate(zip(cases, json.loads(done.stdout), strict=True)):
        for nth, (one, expected) in enumerate(zip(found, in_python(given), strict=True)):
            rest = one["body"].pop("lading", None)
            one["rest"] = None if rest is None else msgspec.convert(rest, Rest)
            for name, value in expected.items():
                assert one[name] == value, f"{name}, gateway {nth} of case {at}, seed {SEED}"


def case(rng: random.Random) -> dict[str, Any]:
    """Streams of gateways, cut anywhere; some end in a lie. Each one's is what it was asked for by the consumer that
    has what the ones before gave."""
    answer, asked, gateways = Continued(), {"model": "m", "stream": True}, []
    for _ in range(rng.randint(1, 4)):
        body = answer.body(asked)
        answer.head(HEAD)
        data = stream(body, rng.randint(1, 4))
        data = data[: rng.randint(0, len(data))]
        if rng.random() < 0.5:
            end = data.rfind(b"\n\n") + 2 if b"\n\n" in data else 0
            data = data[:end] + rng.choice(extras(rng, len(answer.choices[0].ids)))
        data = data.replace(b"\n", b"\r\n") if rng.random() < 0.3 else data
        size = rng.randint(1, 400)
        pieces = [data[at : at + size] for at in range(0, len(data), size)]
        for piece in pieces:
            answer.feed(piece)
        gateways.append({"head": HEAD, "pieces": [base64.b64encode(one).decode() for one in pieces]})
    return {"asked": asked, "gateways": gateways}


def extras(rng: random.Random, next_token: int) -> list[bytes]:
    """What is no lie but seldom, and lies."""
    signed = make_receipt(output_tokens=rng.choice([1, 33, 64]), job=from_hex(HEAD["x-lading-job"], 32)).pack()
    error = b'data: {"error": {"code": "job_lost", "message": "Nobody goes on."}}\n\n'
    chances = (Chance(-0.25, b"ab", ((-0.25, b"\xff"), (-3.5, b""))), Chance(-0.0, b"c"))
    likely = line(Told(0, next_token, (7, 8), 1, chances=chances, text="é"))
    return [
        line(Told(receipt=signed, marks=rng.randbytes(64))) + b"\n",
        line(Told(receipt=signed[:100])) + b"\n",
        likely + event("é"),
        likely.replace(b"-0.25", b"0.25") + event("é"),
        error,
        b": a comment\n\n",
        *LIES.values(),
    ]


def in_python(given: dict[str, Any]) -> list[dict[str, Any]]:
    answer, found = Continued(), []
    for gateway in given["gateways"]:
        body = answer.body(given["asked"])
        rest = body.pop("lading", None)
        answer.head(gateway["head"])
        ready = [text.decode() for one in gateway["pieces"] for text in answer.feed(base64.b64decode(one))]
        signed = sorted(answer.receipts.values(), key=lambda one: answer.jobs.index(one.job))
        found.append(
            {
                "ready": ready,
                "body": body,
                "rest": None if rest is None else msgspec.convert(rest, Rest),
                "begun": answer.begun,
                "able": answer.able,
                "done": answer.done,
                "moved": answer.moved,
                "progress": answer.progress,
                "jobs": list(answer.jobs),
                "hosts": list(answer.hosts),
                "shown": answer.shown.decode(),
                "cost": str(answer.cost),
                "failed": None if answer.failed is None else list(answer.failed),
                "fault": answer.fault is not None,
                "receipts": {
                    "job": answer.jobs[0],
                    "jobs": list(answer.jobs),
                    "receipts": [to_hex(one.packed) for one in signed],
                    "marks": [to_hex(b"".join(one.marks)) for one in signed],
                    "ids": list(answer.choices[0].ids),
                },
            }
        )
    return found
