"""`lading run` and `lading models`."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import msgspec
from cyclopts import Parameter

from lading import keyfile
from lading.answers import Bill, Delta, Notice
from lading.cli import context
from lading.cli.flags import Also, Answer, Asking, BaseUrl, Peers
from lading.cli.output import emit_rows, err, out, plain
from lading.client import Client
from lading.core.options import Options
from lading.errors import BadRequest, BadSettings
from lading_contracts import deployment as deployments
from lading_protocol.pricing import format_amount


@Parameter(name="*")
@dataclass(frozen=True)
class Through(Asking):
    """The way to hosts: through a coordinator, or straight to them."""

    base_url: BaseUrl = None
    peer: Peers = None


async def _client(through: Through, **flags: object) -> Client:
    chosen = context.on(through, base_url=through.base_url, peers=through.peer, **flags)
    if chosen.peers:
        record = deployments.load(chosen.deployment_path)
        key = keyfile.load_key(chosen.key_path)
        return await Client.peer_to_peer(
            record, chosen.chain_url, key, chosen.peers, chosen.home_path, network_key=chosen.network_key
        )
    return Client.through(chosen.base_url, chosen.api_key, chosen.others)


async def run(
    model: str,
    prompt: str | None = None,
    /,
    *,
    operation: str | None = None,
    system: str | None = None,
    max_tokens: int | None = None,
    temperature: float = 1.0,
    seed: int | None = None,
    answer: Answer = Answer(),
    receipt: Path | None = None,
    api_key: str | None = None,
    also: Also = None,
    through: Through = Through(),
) -> int:
    """Ask a model, and see the answer as it comes.

    Through a coordinator, --api-key pays. With --peer it goes straight to the hosts and your own deposit pays.

    Parameters
    ----------
    model
        A name from `lading models`, or an agent's 0x digest.
    prompt
        What to ask; read from standard input when left out. With --operation it is JSON.
    operation
        What the agent should do, when it is neither a chat nor vectors: see `lading models`.
    system
        Instructions that come before the prompt.
    max_tokens
        Stop after this many output tokens.
    temperature
        0 always takes the likeliest token; up to 2.
    seed
        A number that makes the answer repeatable.
    receipt
        Write what the hosts signed to this file, for `lading receipt verify`.
    api_key
        The key of your spending session (see `lading wallet session`).
    """
    if receipt is not None and receipt.exists():
        raise BadSettings(f"{receipt} exists already.", hint="Choose another file for --receipt.")
    text = prompt if prompt is not None else sys.stdin.read()
    turns = ([("system", system)] if system else []) + [("user", text)]
    options = _options(answer, max_tokens, temperature, seed)
    given = None if operation is None else _json(text)
    pieces: list[str] = []
    async with await _client(through, api_key=api_key, also=also) as client:
        if operation is None:
            told = client.chat(model, turns, options)
        else:
            told = client.call(model, operation, given, max_tokens)
        async for piece in told:
            match piece:
                case Delta(more):
                    pieces.append(more)
                    if not through.as_json:
                        _show(more)
                case Notice(note):
                    err.print(plain(note), style="yellow", markup=False, soft_wrap=True)
                case Bill():
                    _show_bill(piece, "".join(pieces), through.as_json)
                    if receipt is not None:
                        receipt.write_text(json.dumps(await client.receipts(piece.job)) + "\n")
    return 0


def _options(answer: Answer, max_tokens: int | None, temperature: float, seed: int | None) -> Options:
    form: dict[str, object] | None = {"type": "json_object"} if answer.json_answer else None
    if answer.schema is not None:
        if answer.json_answer:
            raise BadRequest("--schema and --json-answer exclude each other.", hint="Leave one out.")
        try:
            schema = json.loads(answer.schema.read_text())
        except (OSError, ValueError) as error:
            raise BadRequest(
                f"{answer.schema} holds no JSON Schema: {error}.", hint="Give another --schema."
            ) from error
        form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    return Options(
        max_tokens,
        temperature,
        answer.top_p,
        answer.stop or (),
        seed,
        top_k=answer.top_k,
        min_p=answer.min_p,
        presence_penalty=answer.presence_penalty,
        frequency_penalty=answer.frequency_penalty,
        repetition_penalty=answer.repetition_penalty,
        logit_bias=dict(map(_bias, answer.logit_bias or ())),
        response_format=form,
    )


def _bias(given: str) -> tuple[int, float]:
    token, _, value = given.partition("=")
    try:
        return int(token), float(value)
    except ValueError:
        raise BadRequest(
            f"--logit-bias takes ID=NUMBER, not {given!r}.", hint="Like --logit-bias 50256=-100."
        ) from None


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError as error:
        raise BadRequest(f"The input is not JSON: {error}.", hint="A string needs quotes: '\"like this\"'.") from error


def _show(text: str) -> None:
    """As it came; but what a terminal would obey is only shown there, never done."""
    sys.stdout.write(plain(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()


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
        f"job …{bill.job[-8:]}[/]",
        soft_wrap=True,
    )


async def models(
    *,
    through: Through = Through(),
) -> int:
    """List the models on offer with their prices."""
    async with await _client(through) as client:
        found = await client.models()
    if through.as_json:
        trees = [msgspec.structs.asdict(model) for model in found]
        wei = ("price_in", "price_out")
        print(json.dumps([{name: str(v) if name in wei else v for name, v in tree.items()} for tree in trees]))
        return 0
    rows = [
        {
            "model": model.name,
            "for": ", ".join(model.operations),
            "input_per_1k": f"{format_amount(model.price_in, 18)} LADE",
            "output_per_1k": f"{format_amount(model.price_out, 18)} LADE",
            "hosts": model.hosts,
            "audits": " or ".join(model.assurance),
            "context": model.context,
            "agent": model.agent[:12] + "…",
        }
        for model in found
    ]
    emit_rows(rows, False, "No model is on offer right now.")
    return 0
