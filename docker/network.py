"""Sets up the network of compose.yaml, with the commands that anyone would type: `network.py contracts|coordinator|agents|ask`.

What was done is not done again: containers that are started anew find their network as it was.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.request import urlopen

DATA = Path("/data")
RECORD = DATA / "deployment.json"
TOLD = DATA / "coordinator.json"
API_KEY = DATA / "consumer" / "api-key"
LADING = (sys.executable, "-Es", "-m", "lading.cli.main")
COORDINATOR = "/ip4/127.0.0.1/tcp/4600"
GOSSIP = "/ip4/127.0.0.1/tcp/4601"
HTTP = "http://127.0.0.1:8600"
NODES = ("node1", "node2")
PATIENCE_S = 60.0
# Models here run in a container that forbids the second wall which a node would like to build inside it.
SETTINGS = """\
[node]
data = "/data/{name}"
deployment = "/data/deployment.json"
listen = ["/ip4/127.0.0.1/tcp/{port}"]
gossip_listen = "/ip4/127.0.0.1/tcp/{gossip}"
bootstrap = ["{bootstrap}"]
coordinators = ["{coordinator}"]
http = {http}
require_isolation = false
agents = [{{ digest = "{agent}", terms = "{terms}" }}]
"""


def lading(*words: str) -> dict[str, Any]:
    done = subprocess.run([*LADING, *words, "--json"], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"lading {' '.join(words)}: {done.stderr or done.stdout}")
    print("lading", *words, flush=True)
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def until(url: str, data: bytes | None = None) -> dict[str, Any]:
    """What answers at `url`, as soon as something does."""
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            with urlopen(url, data, timeout=5) as answer:
                found: dict[str, Any] = json.load(answer)
                return found
        except (OSError, ValueError) as error:
            if time.monotonic() > end:
                sys.exit(f"{url} does not answer: {error}")
            time.sleep(0.2)


def contracts() -> None:
    if not RECORD.exists():
        until("http://127.0.0.1:8545", b'{"jsonrpc":"2.0","id":1,"method":"eth_chainId","params":[]}')
        lading("chain", "deploy", "--seed", "lading", "--devnet", "--deployment", str(RECORD))


def coordinator() -> None:
    """Becomes the coordinator; the line that says where it is reached goes to a file, for the hosts."""
    told = os.open(TOLD, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(told, 1)
    where = ("--http-host", "0.0.0.0", "--http-public", HTTP, "--listen", COORDINATOR, "--gossip", GOSSIP)
    own = ("--home", str(DATA / "coordinator"), "--deployment", str(RECORD))
    os.execv(LADING[0], [*LADING, "coordinator", "up", "--json", *where, *own])


def ask() -> None:
    words = ["run", "lading-chat", " ".join(sys.argv[2:]), "--max-tokens", "60", "--api-key", API_KEY.read_text()]
    os.execv(LADING[0], [*LADING, *words, "--home", str(DATA / "consumer"), "--deployment", str(RECORD)])


def agents() -> None:
    until(f"{HTTP}/readyz")
    if (DATA / "node2" / "settings.toml").exists():
        return
    for who in ("maker", "consumer"):
        made = lading("wallet", "new", "--home", str(DATA / who))
        fund(made["address"])
    maker = ("--home", str(DATA / "maker"), "--deployment", str(RECORD))
    published = lading("agent", "publish", "/agents/chat", "--no-test", "--to", COORDINATOR, *maker)
    for number, name in enumerate(NODES, 1):
        data = ("--data", str(DATA / name))
        fund(lading("node", "init", *data)["operator"])
        lading("node", "stake", "1000", *data, "--deployment", str(RECORD))
        settings = SETTINGS.format(
            name=name,
            port=4100 + number,
            gossip=4200 + number,
            http=4180 + number,
            bootstrap=json.loads(TOLD.read_text())["gossip"],
            coordinator=COORDINATOR,
            agent=published["agent"],
            terms=published["terms"],
        )
        (DATA / name / "settings.toml").write_text(settings)
    consumer = ("--home", str(DATA / "consumer"), "--deployment", str(RECORD))
    lading("wallet", "deposit", "100", *consumer)
    API_KEY.write_text(lading("wallet", "session", "--cap", "50", *consumer)["api_key"])


def fund(address: str) -> None:
    lading("chain", "faucet", address, "--deployment", str(RECORD))


if __name__ == "__main__":
    {"contracts": contracts, "coordinator": coordinator, "agents": agents, "ask": ask}[sys.argv[1]]()
