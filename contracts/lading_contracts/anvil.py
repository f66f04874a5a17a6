"""Anvil as the local chain, where it is installed: a child process behind the embedded chain's three names.

Faster than py-evm and knows newer forks; nothing needs it. The process ends with `stop()`; its state file survives.
"""

import asyncio
import shutil
import socket
from pathlib import Path

import msgspec

from lading_contracts.embedded.server import DEFAULT_CHAIN_ID, FAUCET_BALANCE, faucet_key
from lading_contracts.errors import ChainMissing, ChainUnreachable, PortInUse
from lading_contracts.rpc import RpcSettings, open_chain
from lading_protocol.ids import to_hex

_START_SECONDS = 10.0


class AnvilSettings(msgspec.Struct, frozen=True, kw_only=True):
    """As EmbeddedSettings; `program=None` looks in PATH and in the development checkout."""

    program: Path | None = None
    folder: Path | None = None
    port: int = 0
    chain_id: int = DEFAULT_CHAIN_ID
    block_time: float = 2.0
    seed: str = "lading"


def find() -> Path | None:
    """Where anvil is, if anywhere."""
    found = shutil.which("anvil")
    if found is not None:
        return Path(found)
    # The program itself and not npm's wrapper: it needs no Node, and dies when it is told to.
    modules = Path(__file__).parent.parent / "node_modules" / "@foundry-rs"
    return next(iter(sorted(modules.glob("anvil-*/bin/anvil"))), None)


class Anvil:
    """A running anvil: `url`, `chain_id`, `faucet`, and `stop()`."""

    def __init__(self, settings: AnvilSettings, process: asyncio.subprocess.Process, port: int) -> None:
        self.chain_id = settings.chain_id
        self.faucet = faucet_key(settings.seed)
        self.url = f"http://127.0.0.1:{port}"
        self._process = process

    @classmethod
    async def start(cls, settings: AnvilSettings) -> "Anvil":
        """Raises ChainMissing, PortInUse, ChainUnreachable (it did not come up)."""
        program = settings.program or find()
        if program is None:
            raise ChainMissing("anvil is not installed.", hint="Use the embedded chain, or install Foundry.")
        port = _free_port(settings.port)
        arguments = ["--host", "127.0.0.1", "--port", str(port), "--chain-id", str(settings.chain_id)]
        arguments += ["--accounts", "0", "--hardfork", "prague", "--silent"]
        if settings.block_time > 0:
            arguments += ["--mixed-mining", "--block-time", str(max(1, round(settings.block_time)))]
        if settings.folder is not None:
            settings.folder.mkdir(parents=True, exist_ok=True)
            arguments += ["--state", str(settings.folder / "anvil.json"), "--state-interval", "2"]
        none = asyncio.subprocess.DEVNULL
        process = await asyncio.create_subprocess_exec(str(program), *arguments, stdin=none, stdout=none, stderr=none)
        anvil = cls(settings, process, port)
        try:
            await anvil._fund()
        except BaseException:
            await anvil.stop()
            raise
        return anvil

    async def _fund(self) -> None:
        chain = open_chain(self.url, self.chain_id, RpcSettings(attempts=1))
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _START_SECONDS
        try:
            while True:
                try:
                    if await chain.balance(self.faucet.address) < FAUCET_BALANCE // 2:
                        await chain.request("anvil_setBalance", [to_hex(self.faucet.address), hex(FAUCET_BALANCE)])
                    return
                except ChainUnreachable:
                    if self._process.returncode is not None or loop.time() > deadline:
                        raise
                    await asyncio.sleep(0.05)
        finally:
            await chain.close()

    async def stop(self) -> None:
        if self._process.returncode is None:
            self._process.terminate()
            await self._process.wait()


def _free_port(wanted: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError as error:
            raise PortInUse(f"Port {wanted} of this machine is taken.") from error
        return int(probe.getsockname()[1])
