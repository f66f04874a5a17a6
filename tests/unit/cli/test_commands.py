"""Every command of `lading`: its help, what it refuses before it does anything, and how it ends."""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cyclopts import App

from lading import keyfile
from lading.cli import context, output
from lading.cli.main import app, main
from lading.errors import BadSettings
from lading_contracts.errors import ChainUnreachable, Reverted, WrongChain
from lading_net.errors import DialFailed, PortInUse
from lading_protocol.errors import LadingError
from lading_protocol.keys import PrivateKey


def commands(group: App, *path: str) -> Iterator[str]:
    """Every command and every group of them, as a person types it."""
    yield " ".join(path)
    for name in sorted(name for name in group if not name.startswith("-")):
        yield from commands(group[name], *path, name)


COMMANDS = tuple(commands(app))
GROUPS = {command.rpartition(" ")[0] for command in COMMANDS if command}


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings of whoever runs the tests, and a home that is empty."""
    for name in [name for name in os.environ if name.startswith("LADING_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("LADING_SETTINGS", os.devnull)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "80")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_there_and_fits(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command.split(), "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("Usage: lading")
    assert max(map(len, text.splitlines())) <= 80
    about = text.split("\n\n")[1].strip()
    assert about.endswith(".")
    assert any(line.lstrip("│* ").startswith("--json") for line in text.splitlines()) == (command not in GROUPS)


def test_every_command_is_looked_at() -> None:
    assert {"", "run", "agent update", "node why", "audit calibrate", "coordinator up"} <= set(COMMANDS)
    assert len(COMMANDS) > 75


@pytest.mark.parametrize("command", COMMANDS)
def test_each_parameter_says_what_it_is_and_nothing_that_nobody_needs(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """No flag without a word, no `--no-switch` for what is off anyway, no default that says nothing."""
    main([*command.split(), "--help"])
    text = capsys.readouterr().out
    assert "[default: False]" not in text
    assert '[default: ""]' not in text
    assert "--empty-" not in text
    for line in text.splitlines():
        cells = [cell for cell in re.sub(r"\[(default|required).*", "", line).strip("│* ").split("  ") if cell]
        if line.startswith("│ ") and cells and re.fullmatch(r"--[a-z-]+( [A-Z.]+)?|[A-Z]+( --[a-z-]+)?", cells[0]):
            assert len(cells) > 1, line


WRONG: list[tuple[str, int, str]] = [
    ("wallet balance", 2, "bad_key"),
    ("wallet deposit many", 2, "bad_key"),
    ("wallet withdraw", 2, "bad_settings"),
    ("wallet withdraw 1 --finish", 2, "bad_settings"),
    ("wallet session --cap 1 --hours 0", 2, "bad_key"),
    ("wallet revoke 0x12", 2, "bad_key"),
    ("agent init /dev/null/project", 1, "system"),
    ("agent inspect /nowhere", 2, "bad_manifest"),
    ("agent inspect /dev/null", 2, "bad_manifest"),
    ("agent publish /nowhere", 2, "bad_key"),
    ("agent consent 0x12", 2, "bad_key"),
    ("agent policy boss 3%", 2, "bad_settings"),
    ("agent policy curator 300%", 2, "bad_settings"),
    ("agent policy curator 3%", 2, "bad_key"),
    ("agent terms", 2, "bad_settings"),
    ("agent terms 0x12", 2, "bad_settings"),
    ("agent sunset 0x12", 2, "bad_settings"),
    ("agent supersede 0x12 0x13", 2, "bad_settings"),
    ("chain verify", 2, "bad_deployment"),
    ("chain deploy --seed s --coin 0x12 --chain-url http://127.0.0.1:1", 2, "bad_settings"),
    ("chain status", 2, "bad_settings"),
    ("chain status --chain-id 5 --chain-url http://127.0.0.1:1", 3, ""),
    ("chain up --port 65536", 2, "usage"),
    ("chain up --block-time -1", 2, "usage"),
    ("chain deploy --seed s --chain-url http://127.0.0.1:1", 5, "chain_unreachable"),
    ("chain faucet 0x12", 2, "bad_deployment"),
    ("receipt verify /nowhere", 2, "bad_deployment"),
    ("run m hello --base-url nowhere", 2, "bad_settings"),
    ("run m hello --base-url http://127.0.0.1:1", 5, "net_gateway"),
    ("run m hello --base-url http://127.0.0.1:1 --api-key schlüssel", 2, "bad_settings"),
    ("run m hello --peer /ip4/127.0.0.1/tcp/1", 2, "bad_deployment"),
    ("run m hello --temperature warm", 2, "usage"),
    ("models --base-url http://[::1", 2, "bad_settings"),
    ("models --nonsense", 2, "usage"),
    ("nonsense", 2, "usage"),
    ("node status --http 1", 3, "net_no_node"),
    ("node why --http 1", 3, "net_no_node"),
    ("coordinator status --url http://127.0.0.1:1", 3, "net_gateway"),
    ("wallet balance --key /dev/null", 2, "bad_key"),
]


@pytest.mark.parametrize(("line", "code", "name"), WRONG, ids=[row[0] for row in WRONG])
def test_mistakes_have_an_exit_code_and_a_stable_name(
    line: str, code: int, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(line.split()) == code
    for person in capsys.readouterr():
        assert "Traceback" not in person
    assert main([*line.split(), "--json"]) == code
    told = capsys.readouterr()
    if name:
        error = json.loads(told.err)["error"]
        assert (error["code"], error["exit"]) == (name, code)
        assert error["message"]
        assert error["hint"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (LadingError("x"), 1),
        (BadSettings("x"), 2),
        (WrongChain("x"), 2),
        (Reverted("x", name="StaleVoucher"), 4),
        (LadingError("x", code="session_expired"), 4),
        (ChainUnreachable("x"), 5),
        (DialFailed("x"), 5),
        (PortInUse("x"), 1),
    ],
)
def test_exit_codes(error: LadingError, code: int) -> None:
    assert output.exit_code(error) == code


def test_a_bug_is_one_line_and_a_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def broken(**flags: object) -> None:
        raise RuntimeError("a wheel\ncame off")

    monkeypatch.setattr(context, "settings", broken)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert main(["wallet", "balance"]) == 1
    told = capsys.readouterr().err
    assert "Traceback" not in told
    assert "RuntimeError: a wheel" in told
    (file,) = tmp_path.glob("lading-*.log")
    assert str(file) in told
    assert file.stat().st_mode & 0o777 == 0o600
    assert "came off" in file.read_text()
    assert "Traceback" in file.read_text()


def test_a_person_reads_words_and_a_program_json(capsys: pytest.CaptureFixture[str]) -> None:
    record = {"ready": True, "chain": False, "at": ["a", "b"], "note": None}
    output.emit(record, False)
    rows = [row.split() for row in capsys.readouterr().out.splitlines()]
    assert rows == [["ready", "yes"], ["chain", "no"], ["at", "a,", "b"], ["note"]]
    output.emit(record, True)
    assert json.loads(capsys.readouterr().out) == record


def test_text_from_elsewhere_neither_styles_nor_drives_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    output.report(LadingError("The project has no [[party]] and [/bold] \x1b[2J.", hint="[red]Add[/red] one."))
    output.emit({"name": "[link=http://x]\x1b]0;mine\x07"}, False)
    output.emit_rows([{"model": "[blink]\x9b31m"}], False, "")
    told = capsys.readouterr()
    for text in ("[[party]]", "[/bold]", "[red]Add[/red]"):
        assert text in told.err
    assert "[link=http://x]" in told.out
    assert "[blink]" in told.out
    assert not {"\x1b", "\x07", "\x9b"} & set(told.err + told.out)


def test_a_key_file_is_the_owners_only_and_never_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "home"
    assert main(["wallet", "new", "--home", str(home), "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    text = (home / "key").read_text()
    assert PrivateKey.from_hex(text).address.hex() == made["address"][2:]
    assert text.strip() not in json.dumps(made)
    assert (home / "key").stat().st_mode & 0o777 == 0o600
    assert home.stat().st_mode & 0o777 == 0o700
    assert main(["wallet", "new", "--home", str(home)]) == 2
    assert (home / "key").read_text() == text
    capsys.readouterr()
    monkeypatch.setenv("LADING_PASSWORD", "correct horse")
    locked = tmp_path / "locked"
    assert main(["wallet", "new", "--key", str(locked), "--json"]) == 0
    address = json.loads(capsys.readouterr().out)["address"]
    assert "correct horse" not in locked.read_text()
    assert locked.stat().st_mode & 0o777 == 0o600
    assert "0x" + keyfile.load_key(locked).address.hex() == address
    monkeypatch.setenv("LADING_PASSWORD", "wrong horse")
    with pytest.raises(LadingError) as caught:
        keyfile.load_key(locked)
    assert caught.value.code == "bad_keystore"
    assert output.exit_code(caught.value) == 2


BLOCK = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Block())
from lading.cli.main import main
sys.exit(main(sys.argv[1:]))
"""
HEAVY = (
    *("libp2p", "trio", "multiaddr", "onnx", "onnxruntime", "onnxruntime_genai", "numpy", "tokenizers", "fastapi"),
    *("starlette", "httptools", "prometheus_client", "jinja2", "eth", "eth_tester", "torch", "openai", "safetensors"),
)


def consumer(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command in a consumer's installation: what only hosts and coordinators need cannot be imported."""
    program = BLOCK.format(blocked=set(HEAVY))
    return subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("line", "code", "name"),
    [
        ("--help", 0, ""),
        ("nonsense --json", 2, "usage"),
        ("models --base-url http://127.0.0.1:1 --json", 5, "net_gateway"),
        ("run m hello --base-url http://127.0.0.1:1 --json", 5, "net_gateway"),
        ("wallet balance --json", 2, "bad_key"),
        ("agent inspect /dev/null --json", 2, "bad_manifest"),
        ("receipt verify /nowhere --json", 2, "bad_deployment"),
        ("chain up --port 0 --folder {home}/chain --json", 1, "chain_missing"),
        ("coordinator up --json", 1, "not_installed"),
    ],
)
def test_a_plain_installation_needs_no_heavy_package(line: str, code: int, name: str, tmp_path: Path) -> None:
    ended = consumer(*line.format(home=tmp_path).split())
    assert ended.returncode == code, ended.stderr
    assert "Traceback" not in ended.stderr
    if name:
        error = json.loads(ended.stderr)["error"]
        assert error["code"] == name
        assert "pip install 'lading[" in error["hint"] or name not in ("chain_missing", "not_installed")


def test_listing_models_stays_light() -> None:
    """What costs start-up time on every call: the chain adapter's web3 and the network's cryptography stay out."""
    script = (
        "import sys; from lading.cli.main import main; main(['models', '--base-url', 'http://127.0.0.1:1']);"
        "print(*sorted({name.split('.')[0] for name in sys.modules}))"
    )
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60).stdout.split()
    # trio is what httpx takes up by itself where it is installed
    assert not ({*HEAVY, "web3", "eth_account", "lading_net"} - {"trio"}) & set(loaded)
