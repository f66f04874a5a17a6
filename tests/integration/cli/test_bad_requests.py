"""What a consumer can get wrong, against the running network: a stable code, a clear sentence, and nothing lost."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from integration.cli.quay import CHAT, STORY, Quay, call

MESSAGES: Any = [{"role": "user", "content": STORY}]


@pytest.fixture(scope="module")
def home(quay: Quay) -> Path:
    return quay.consumer("a clumsy consumer", deposit="10")


@pytest.fixture(scope="module")
def api_key(quay: Quay, home: Path) -> str:
    return str(quay.session(home)["api_key"])


def refused(quay: Quay, api_key: str, kind: type[openai.APIStatusError], code: str, **changes: Any) -> str:
    """Whole and streamed alike, the SDK raises its own type with our code, and the session is charged nothing."""
    before = quay.seat(api_key).get("spent") if api_key.startswith("lk_") else None
    messages = set()
    with quay.openai(api_key) as client:
        for stream in (False, True):
            ask: dict[str, Any] = {"model": CHAT, "messages": MESSAGES, "max_tokens": 60, "stream": stream} | changes
            with pytest.raises(kind) as caught:
                client.chat.completions.create(**ask)
            assert caught.value.code == code
            assert set(caught.value.body or {}) == {"message", "type", "param", "code"}  # type: ignore[call-overload]
            messages.add(caught.value.message)
    if before is not None:
        assert quay.seat(api_key).get("spent") == before
    return " | ".join(messages)


def run(quay: Quay, api_key: str, *flags: object, model: str = CHAT, prompt: str = STORY) -> tuple[int, str, str]:
    ended = call("run", model, prompt, *flags, *quay.through, "--api-key", api_key, "--json")
    return ended.code, ended.error["code"], f"{ended.error['message']} {ended.error['hint']}".strip()


def test_an_unknown_model(quay: Quay, api_key: str) -> None:
    words = refused(quay, api_key, openai.NotFoundError, "model_not_found", model="gpt-9")
    assert "gpt-9" in words
    assert CHAT in words or "/v1/models" in words
    assert run(quay, api_key, model="gpt-9")[:2] == (4, "model_not_found")


def test_an_over_long_prompt(quay: Quay, api_key: str) -> None:
    long = "word " * 3000
    words = refused(
        quay,
        api_key,
        openai.BadRequestError,
        "context_length_exceeded",
        messages=[{"role": "user", "content": long}],
    )
    assert "1024" in words or "1,024" in words
    assert "Shorten" in words
    assert run(quay, api_key, prompt=long)[:2] == (2, "context_length_exceeded")


@pytest.mark.parametrize("body", [b'{"model": ', b"[]", b'{"model": "lading-chat"}', b"\xff\xfe", b""])
def test_malformed_json(quay: Quay, api_key: str, body: bytes) -> None:
    headers = {"authorization": f"Bearer {api_key}", "content-type": "application/json"}
    answer = httpx.post(f"{quay.theatre.http}/v1/chat/completions", content=body, headers=headers)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert len(error["message"]) > 20


def test_keys_that_open_nothing(quay: Quay, home: Path) -> None:
    for wrong in ("lk_guessed", "sk-proj-of-another-service"):
        with quay.openai(wrong) as client, pytest.raises(openai.AuthenticationError) as caught:
            client.chat.completions.create(model=CHAT, messages=MESSAGES)
        assert caught.value.code == "invalid_api_key"
        assert wrong not in caught.value.message
    assert run(quay, "lk_guessed")[:2] == (4, "invalid_api_key")
    waiting = httpx.post(f"{quay.theatre.http}/lading/v1/sessions", json={"payer": quay.address(home)}).json()
    words = refused(quay, waiting["api_key"], openai.AuthenticationError, "session_not_authorized")
    assert "on chain" in words


def test_an_expired_session_and_a_revoked_one(quay: Quay, home: Path) -> None:
    granted = quay.session(home, cap="1", hours=4 / 3600)
    quay.until_state(granted["api_key"], "session_expired")
    words = refused(quay, granted["api_key"], openai.AuthenticationError, "session_expired")
    assert "expired" in words
    assert run(quay, granted["api_key"])[:2] == (4, "session_expired")
    other = quay.session(home, cap="1")
    assert call("wallet", "revoke", other["session"], "--home", home, *quay.network).code == 0
    quay.until_state(other["api_key"], "session_revoked")
    assert "revoked" in refused(quay, other["api_key"], openai.AuthenticationError, "session_revoked")


def exhausted_cap(quay: Quay) -> str:
    home = quay.consumer("a capped consumer", deposit="10")
    return str(quay.session(home, cap="0.08")["api_key"])


def exhausted_deposit(quay: Quay) -> str:
    home = quay.consumer("a poor consumer", deposit="0.08")
    return str(quay.session(home, cap="10")["api_key"])


@pytest.mark.parametrize("empty", [exhausted_cap, exhausted_deposit])
def test_an_exhausted_cap_and_an_exhausted_deposit(quay: Quay, empty: Callable[[Quay], str]) -> None:
    api_key = empty(quay)
    with quay.openai(api_key) as client:
        small = client.chat.completions.create(model=CHAT, messages=[{"role": "user", "content": "Hi"}], max_tokens=3)
    assert small.usage is not None
    words = refused(quay, api_key, openai.APIStatusError, "insufficient_funds")
    assert "wei" in words
    assert "Deposit more" in words
    assert run(quay, api_key, "--max-tokens", 60)[:2] == (4, "insufficient_funds")
    # What is left can still be spent: a refusal takes nothing.
    assert call("run", CHAT, "Hi", "--max-tokens", 3, *quay.through, "--api-key", api_key).code == 0


def test_an_exhausted_deposit_peer_to_peer_and_topping_up(quay: Quay) -> None:
    home = quay.consumer("a frugal consumer", deposit="0.02")
    ask = ("run", CHAT, STORY, "--max-tokens", 60, *quay.peers(home), "--json")
    poor = call(*ask)
    assert (poor.code, poor.error["code"]) == (4, "insufficient_funds")
    assert "more than you may still spend" in poor.error["message"]
    assert call("wallet", "deposit", "1", "--home", home, *quay.network).code == 0
    assert call(*ask).tree["usage"]["completion_tokens"] > 0


def test_a_second_spender_on_the_same_purse_waits_for_its_turn(quay: Quay, home: Path) -> None:
    """Two programs that sign from one purse would promise the same coins twice."""
    from lading.lock import FolderLock

    held = FolderLock(home / "purse.lock")
    try:
        busy = call("run", CHAT, STORY, *quay.peers(home), "--json")
    finally:
        held.release()
    assert (busy.code, busy.error["code"]) == (1, "folder_busy")
    assert str(home) in busy.error["message"]
    assert call("run", CHAT, STORY, "--max-tokens", 3, *quay.peers(home)).code == 0


def test_peers_and_coordinators_that_are_none(quay: Quay, home: Path) -> None:
    here = ("--home", home, *quay.network, "--json")
    nobody = call("models", "--peer", "/ip4/127.0.0.1/tcp/1", *here)
    assert (nobody.code, nobody.error["code"]) == (5, "net_dial_failed")
    nonsense = call("models", "--peer", "not-a-multiaddr", *here)
    assert (nonsense.code, nonsense.error["code"]) == (2, "net_bad_endpoint")
    chain = call("models", "--base-url", quay.theatre.chain_url, "--json")
    assert chain.code == 1
    assert "answers" in chain.error["message"] or "answered" in chain.error["message"]
    elsewhere = call("agent", "publish", "/", "--base-url", "http://127.0.0.1:1", *here)
    assert (elsewhere.code, elsewhere.error["code"]) == (2, "bad_project")


def test_no_secret_is_in_any_log(quay: Quay, api_key: str) -> None:
    secrets = {party.key.secret.hex() for party in quay.theatre.cast.everyone} | {api_key}
    secrets |= {path.read_text().strip() for path in quay.folder.glob("*/key")}
    logs = list(quay.folder.glob("*.log"))
    assert len(logs) >= 4
    for log in logs:
        text = log.read_text(errors="replace").lower()
        assert not [secret for secret in secrets if secret.lower() in text], log.name
        assert "traceback" not in text, log.name
