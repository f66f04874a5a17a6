"""Flags that many commands share, each with its one sentence."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

Json = Annotated[bool, Parameter(name="--json", negative="", show_default=False, help="Machine-readable output.")]
Switch = Annotated[bool, Parameter(negative="", show_default=False)]
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
Also = Annotated[
    list[str] | None,
    Parameter(help="ADDRESS=KEY of a coordinator that goes on when the first is gone (repeatable)."),
]
Peers = Annotated[list[str] | None, Parameter(help="Go peer to peer through this direct-link endpoint (repeatable).")]


@Parameter(name="*")
@dataclass(frozen=True)
class Answer:
    """How an answer is made, beyond its length and temperature."""

    top_p: Annotated[float, Parameter(help="Choose among the likeliest tokens that have this share together.")] = 1.0
    top_k: Annotated[int, Parameter(help="Choose among so many likeliest tokens (0: all).")] = 0
    min_p: Annotated[float, Parameter(help="Leave out tokens below this share of the likeliest one's chance.")] = 0.0
    presence_penalty: Annotated[float, Parameter(help="-2 to 2: against tokens that the answer has already.")] = 0.0
    frequency_penalty: Annotated[float, Parameter(help="-2 to 2: the same for each time that it has them.")] = 0.0
    repetition_penalty: Annotated[float, Parameter(help="0.5 to 2: against what prompt and answer have.")] = 1.0
    logit_bias: Annotated[
        list[str] | None, Parameter(help="ID=NUMBER, -100 to 100: for or against a token (repeatable).")
    ] = None
    stop: Annotated[list[str] | None, Parameter(help="End before this text (repeatable, up to 4).")] = None
    schema: Annotated[Path | None, Parameter(help="A file with the JSON Schema that the answer obeys.")] = None
    json_answer: Annotated[bool, Parameter(negative="", show_default=False, help="The answer is some JSON object.")] = (
        False
    )


@Parameter(name="*")
@dataclass(frozen=True)
class Network:
    """Who acts, and on which network: the flags of every command that asks the chain."""

    home: Home = None
    key: Key = None
    deployment: Record = None
    chain_url: ChainUrl = None


@Parameter(name="*")
@dataclass(frozen=True)
class Asking(Network):
    """The same with how the answer is shown: a command that signs nothing."""

    as_json: Json = False


@Parameter(name="*")
@dataclass(frozen=True)
class Signing(Asking):
    """And whether it only says what it would sign."""

    dry_run: DryRun = False
