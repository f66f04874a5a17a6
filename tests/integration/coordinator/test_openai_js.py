"""The unmodified `openai` package of npm against the gateway, over loopback: what a consumer's JavaScript does, with
the package alone or over client/js.

Its pinned version is installed the first time, beside the script that uses it. Without Node.js it is a skip with the
reason, and in CI a failure.
"""

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import uvloop

from integration.coordinator.test_openai_dialects import CALL
from integration.coordinator.town import town
from tools import missing, require_program
from unit.coordinator.host import Habits

FOLDER = Path(__file__).parent / "openai_js"
INSTALL = ("npm", "install", "--no-audit", "--no-fund", "--no-package-lock")


def installed() -> None:
    require_program("node")
    require_program("npm")
    if (FOLDER / "node_modules" / ".package-lock.json").exists():  # what npm writes last
        return
    done = subprocess.run(INSTALL, cwd=FOLDER, capture_output=True, text=True, check=False)
    if done.returncode:
        missing(f"npm cannot install the openai package: {done.stderr[-500:]}")


async def tell(folder: Path, how: str) -> Any:
    """What the script found; the host of the stream that it leaves at the end must hear of it."""
    async with town(folder) as made:
        await made.host("one")
        await made.host("two", Habits(says=CALL), "caller")
        await made.host("three", Habits(fails_after=3), "breaker")
        talker = await made.host("four", Habits(length=50_000, pause=0.01), "talker")
        api_key = await made.session()
        script = await asyncio.create_subprocess_exec(
            "node", "consumer.mjs", f"{made.url}/v1", api_key, how, cwd=FOLDER, stdout=-1, stderr=-1
        )
        out, errors = await asyncio.wait_for(script.communicate(), 60)
        assert script.returncode == 0, errors.decode()[-3000:]
        await asyncio.wait_for(talker.stopped.wait(), 2)
        return json.loads(out)


@pytest.fixture(scope="module", params=["alone", "through"])
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    installed()
    return uvloop.run(tell(tmp_path_factory.mktemp("town"), request.param))


def test_chats(found: Any) -> None:
    chat = found["chat"]
    assert (len(chat["text"].split()), chat["finish"], chat["usage"]) == (5, "length", 9)
    assert chat["logprobs"] == [2] * 5
    assert int(chat["cost"]) > 0
    assert chat["receipt"].startswith("/lading/v1/receipts/0x")
    assert [len(text.split()) for text in found["stream"]["texts"]] == [11, 11]
    assert found["stream"]["tokens"] == 24
    assert len(found["helper"].split()) == 11


def test_functions(found: Any) -> None:
    given = {"city": "Zürich"}
    assert found["call"] == {"finish": "tool_calls", "name": "weather", "given": given}
    assert found["callStreamed"] == given
    assert found["responseCall"] == {"kind": "function_call", "given": given}


def test_completions_responses_and_vectors(found: Any) -> None:
    assert [len(text.split()) for text in found["completions"]] == [3, 3]
    assert (found["response"]["status"], found["response"]["tokens"]) == ("incomplete", 4)
    stream = found["responseStream"]
    assert (stream["last"], len(stream["text"].split())) == ("response.completed", 11)
    assert stream["final"] == stream["text"]
    assert found["vectors"] == [[3.0, 1.0, 0.5, -1.25], [1.0, 0.0, 0.5, -1.25]]
    assert sorted(found["models"]) == ["breaker", "caller", "storyteller", "talker"]


def test_refusals(found: Any) -> None:
    assert found["refused"] == {"kind": "NotFoundError", "status": 404, "code": "model_not_found", "param": "model"}
    assert (found["echo"]["kind"], found["echo"]["param"]) == ("BadRequestError", "echo")
    assert (found["stored"]["kind"], found["stored"]["param"]) == ("BadRequestError", "previous_response_id")
    assert found["stranger"] is None
    assert found["strangerChat"]["kind"] == "AuthenticationError"
    assert (found["broken"]["kind"], found["broken"]["code"]) == ("APIError", "job_lost")
    assert (found["brokenResponse"]["kind"], found["brokenResponse"]["code"]) == ("APIError", "job_lost")
