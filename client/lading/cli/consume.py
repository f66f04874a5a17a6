"""`lading run` and `lading models`."""

import json
import sys
from typing import Annotated

from cyclopts import Parameter

from lading.answers import Bill, Delta, Notice
from lading.cli import context
from lading.cli.output import emit_rows, err, out
from lading.client import Client, Options
from lading_contracts import deployment as deployments
from lading_protocol.pricing import format_amount

Peer = Annotated[list[str] | None, Parameter(help="Go peer to peer through this direct-link endpoint (repeatable).")]
Json = Annotated[bool, Parameter(name="--json", negative="", help="Machine-readable output.")]


async def _client(base_url: str | None, api_key: str | None, peer: list[str] | None) -> Client:
    chosen = context.settings(base_url=base_url, api_key=api_key, peers=peer)
    if chosen.peers:
        record = deployments.load(chosen.deployment_path)
        key = context.load_key(chosen.key_path)
        return await Client.peer_to_peer(record, chosen.chain_url, key, chosen.peers, chosen.home_path)
    return Client.through(chosen.base_url, chosen.api_key)


async def run(
    model: str,
    prompt: str | None = None,
    *,
    system: str | None = None,
    max_tokens: int | None = None,
    temperature: float = 1.0,
    seed: int | None = None,
    base_url: str | None = None,
    api_key: str | None = None,
    peer: Peer = None,
    as_json: Json = False,
) -> int:
    """Ask a model, and see the answer as it comes.

    Parameters
    ----------
    model
        A name from `lading models`, or an agent's 0x digest.
    prompt
        What to ask; read from standard input when left out.
    system
        Instructions that come before the prompt.
    max_tokens
        Stop after this many output tokens.
    temperature
        0 always takes the likeliest token; up to 2.
    seed
        A number that makes the answer repeatable.
    base_url
        The coordinator's address.
    api_key
        The key of your spending session (see `lading wallet session`).
    """
    text = prompt if prompt is not None else sys.stdin.read()
    turns = ([("system", system)] if system else []) + [("user", text)]
    options = Options(max_tokens=max_tokens, temperature=temperature, seed=seed)
    pieces: list[str] = []
    async with await _client(base_url, api_key, peer) as client:
        async for piece in client.chat(model, turns, options):
            match piece:
                case Delta(more):
                    pieces.append(more)
                    if not as_json:
                        out.print(more, end="", markup=False, soft_wrap=True)
                case Notice(note):
                    err.print(f"[yellow]{note}[/]", soft_wrap=True)
                case Bill():
                    _show_bill(piece, "".join(pieces), as_json)
    return 0


def _show_bill(bill: Bill, text: str, as_json: bool) -> None:
    if as_json:
        usage = {"prompt_tokens": bill.prompt_tokens, "completion_tokens": bill.output_tokens}
        record = {"text": text, "finish": bill.finish, "usage": usage, "cost_wei": str(bill.cost), "job": bill.job}
        print(json.dumps(record | {"hosts": list(bill.hosts)}))
        return
    out.print()
    cost = format_amount(bill.cost, 18)
    hosts = "host" if len(bill.hosts) == 1 else "hosts"
    err.print(
        f"[dim]{bill.prompt_tokens} + {bill.output_tokens} tokens from {len(bill.hosts)} {hosts} for {cost} LADE; "
        f"job {bill.job[:10]}…[/]",
        soft_wrap=True,
    )


async def models(
    *, base_url: str | None = None, api_key: str | None = None, peer: Peer = None, as_json: Json = False
) -> int:
    """List the models on offer with their prices.

    Parameters
    ----------
    base_url
        The coordinator's address.
    api_key
        Not needed for listing.
    """
    async with await _client(base_url, api_key, peer) as client:
        found = await client.models()
    rows = [
        {
            "model": model.name,
            "for": ", ".join(model.operations),
            "input_per_1k": f"{format_amount(model.price_in, 18)} LADE",
            "output_per_1k": f"{format_amount(model.price_out, 18)} LADE",
            "hosts": model.hosts,
            "context": model.context,
            "agent": model.agent if as_json else model.agent[:12] + "…",
        }
        for model in found
    ]
    emit_rows(rows, as_json, "No model is on offer right now.")
    return 0
