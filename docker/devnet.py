"""What a network needs once before it works, for compose.yaml: run inside the coordinator's image, in two parts.

`prepare` deploys the contracts and hands out coins; `open` (when the coordinator is up) publishes an agent, stakes for
both hosts, writes their settings, and buys a session; `run NAME ...` is a program whose first line others wait for;
`ask` is a consumer. Every step is the command that a person would type.
"""

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

DATA = Path("/data")
DEPLOYMENT = DATA / "deployment.json"
CHAIN = "http://127.0.0.1:8545"
SEED = "lading"
HOSTS = {"host-a": 4101, "host-b": 4111}
SETTINGS = """\
[node]
data = "{home}"
chain_url = "{chain}"
deployment = "{deployment}"
listen = ["/ip4/127.0.0.1/tcp/{port}"]
announce = ["/ip4/127.0.0.1/tcp/{port}"]
gossip_listen = "/ip4/127.0.0.1/tcp/{gossip}"
bootstrap = ["{bootstrap}"]
http = -1
# The walls of a process cannot be built inside this container, which is a wall itself.
require_isolation = false
agents = [{{ digest = "{agent}", terms = "{terms}" }}]
"""


def lading(*words: str) -> Any:
    """A command of `lading`; what it says."""
    command = [sys.executable, "-m", "lading.cli.main", *words, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"lading {' '.join(words)}: {done.stderr.strip() or done.stdout.strip()}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def eventually(path: Path) -> dict[str, Any]:
    """What a program writes about itself when it is up."""
    for _ in range(300):
        try:
            found: dict[str, Any] = json.loads(path.read_text().splitlines()[0])
            return found
        except (OSError, ValueError, IndexError):
            time.sleep(0.2)
    sys.exit(f"{path} was not written within a minute")


def prepare() -> None:
    eventually(DATA / "chain.log")
    where = ("--chain-url", CHAIN, "--deployment", str(DEPLOYMENT))
    lading("chain", "deploy", *where, "--seed", SEED, "--devnet")
    for name in HOSTS:
        made = lading("node", "init", "--data", str(DATA / name))
        lading("chain", "faucet", made["operator"], "--seed", SEED, *where)
    for name in ("publisher", "consumer", "coordinator"):
        made = lading("wallet", "new", "--home", str(DATA / name))
        lading("chain", "faucet", made["address"], "--seed", SEED, *where)


def open_network() -> None:
    coordinator = eventually(DATA / "coordinator.log")
    where = ("--chain-url", CHAIN, "--deployment", str(DEPLOYMENT))
    publisher, consumer = (("--home", str(DATA / name)) for name in ("publisher", "consumer"))
    made = lading(
        "agent", "publish", "/agents/chat", "--to", coordinator["endpoints"][0], "--no-test", *publisher, *where
    )
    for name, port in HOSTS.items():
        home = DATA / name
        lading("node", "stake", "1000", "--data", str(home), *where)
        settings = SETTINGS.format(
            home=home,
            chain=CHAIN,
            deployment=DEPLOYMENT,
            port=port,
            gossip=port + 1,
            bootstrap=coordinator["gossip"],
            agent=made["agent"],
            terms=made["terms"],
        )
        (home / "settings.toml").write_text(settings)
    lading("wallet", "deposit", "60", *consumer, *where)
    session = lading("wallet", "session", "--cap", "50", "--base-url", coordinator["http"], *consumer, *where)
    (DATA / "api-key").write_text(session["api_key"])


def run(name: str, *words: str) -> None:
    """Become `lading` with these words; what it says goes to a file that the other containers can read."""
    with (DATA / f"{name}.log").open("wb") as log:
        os.dup2(log.fileno(), 1)
    os.execv(sys.executable, [sys.executable, "-m", "lading.cli.main", *words])


def ask(question: str) -> None:
    """As any OpenAI client would, once hosts are there."""
    url = eventually(DATA / "coordinator.log")["http"]
    body = {"model": "lading-chat", "messages": [{"role": "user", "content": question}], "max_tokens": 60}
    key = (DATA / "api-key").read_text()
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(body).encode(), headers)
    why: object = ""
    for _ in range(90):
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                print(json.loads(answer.read())["choices"][0]["message"]["content"])
                return
        except OSError as error:
            why = error
            time.sleep(1)
    sys.exit(f"no answer: {why}")


if __name__ == "__main__":
    parts: dict[str, Callable[..., None]] = {"prepare": prepare, "open": open_network, "run": run, "ask": ask}
    parts[sys.argv[1]](*sys.argv[2:])
