"""Flags that many commands share, each with its one sentence."""

from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter

Json = Annotated[bool, Parameter(name="--json", negative="", show_default=False, help="Machine-readable output.")]
DryRun = Annotated[
    bool,
    Parameter(
        name="--dry-run", negative="", show_default=False, help="Say what would be signed, ask the chain, and stop."
    ),
]
Home = Annotated[str | None, Parameter(help="Folder of key, deployment record and purse (default ~/.lading).")]
Record = Annotated[str | None, Parameter(help="The network's deployment record (default in the home folder).")]
ChainUrl = Annotated[str | None, Parameter(help="The chain's JSON-RPC address.")]
Key = Annotated[str | None, Parameter(help="The key file (default in the home folder).")]
BaseUrl = Annotated[str | None, Parameter(help="The coordinator's address.")]
Peers = Annotated[
    list[str] | None, Parameter(negative="", help="Go peer to peer through this direct-link endpoint (repeatable).")
]


@Parameter(name="*")
@dataclass(frozen=True)
class Network:
    """Who acts, and on which network: the flags of every command that asks the chain."""

    home: Home = None
    key: Key = None
    deployment: Record = None
    chain_url: ChainUrl = None
