"""`lading audit`: what was checked of a job, by whom, with which numbers, and where the case stands."""

import time
from pathlib import Path
from typing import Annotated, Any

import httpx
import msgspec
from cyclopts import App, Parameter
from rich.markup import escape

from lading.cli import context
from lading.cli.flags import BaseUrl, Home, Json, Record
from lading.cli.output import emit, emit_rows, line, out
from lading.core.audit_record import AuditRecord, faults_of
from lading.core.audit_words import told, when
from lading.errors import BadFile, GatewayError
from lading.routes.passage import refused, root_of, unreachable
from lading_contracts import deployment as deployments
from lading_protocol.eip712 import Domain
from lading_protocol.errors import BadReceipt, LadingError
from lading_protocol.ids import digest, to_hex

app = App(name="audit", help="What spot checks found, and how sure they are.")
app.command(
    "lading_node.cli_calibrate:calibrate_command",
    name="calibrate",
    help="Measure what honest hosts show, and sign the limits of a numeric class.",
)
MAX_RECORD = 8 << 20
ApiKey = Annotated[str | None, Parameter(help="The key of the session that paid for the job.")]


@app.command
async def show(
    job: str,
    /,
    *,
    save: Annotated[Path | None, Parameter(help="Also write the record to this file.")] = None,
    base_url: BaseUrl = None,
    home: Home = None,
    deployment: Record = None,
    as_json: Json = False,
) -> int:
    """Explain the audit of a job: verdict, numbers and limits, auditors, deadlines. Its hashes are checked here.

    Parameters
    ----------
    job
        The job's id (the header x-lading-job), or the file of a saved record, which is read offline.
    """
    chosen = context.settings(base_url=base_url, home=home, deployment=deployment)
    path = Path(job)
    body = _file(path) if path.is_file() else await _call(chosen.base_url, "GET", f"/lading/v1/audits/{_job(job)}")
    record = _record(body, str(path) if path.is_file() else chosen.base_url)
    if save is not None:
        save.write_bytes(body)
    faults = faults_of(record, _domain(chosen.deployment_path))
    if as_json:
        emit(msgspec.to_builtins(record) | {"faults": faults}, True)
    else:
        for text in told(record, time.time()):
            indent = len(text) - len(text.lstrip())
            out.print(" " * indent + escape(line(text.strip())), soft_wrap=True)
        if not faults:
            out.print(
                "\n[dim]Checked here: signatures, the anchored root, and that the randomness names these auditors.[/]"
            )
    if faults:
        raise BadReceipt(f"The record does not hold: {'; '.join(faults)}.")
    return 0


@app.command(name="list")
async def list_(*, limit: int = 50, base_url: BaseUrl = None, as_json: Json = False) -> int:
    """List the newest audits of a coordinator.

    Parameters
    ----------
    limit
        How many.
    """
    chosen = context.settings(base_url=base_url)
    body = await _call(chosen.base_url, "GET", f"/lading/v1/audits?limit={limit}")
    try:
        rows = [_row(one) for one in msgspec.json.decode(body)["audits"]]
    except (msgspec.MsgspecError, LookupError, TypeError, ValueError, OverflowError, OSError) as error:
        raise GatewayError(f"What {chosen.base_url} answers is no list of audits: {error}.") from error
    emit_rows(rows, as_json, "No audit yet.")
    return 0


@app.command
async def buy(job: str, /, *, api_key: ApiKey = None, base_url: BaseUrl = None, as_json: Json = False) -> int:
    """Have a job of yours audited, whatever the randomness picks.

    Parameters
    ----------
    job
        The job's id: the header x-lading-job, or what `lading run --json` tells.
    """
    chosen = context.settings(base_url=base_url, api_key=api_key)
    body = await _call(chosen.base_url, "POST", "/lading/v1/audits", {"job": _job(job)}, chosen.api_key)
    try:
        tree: dict[str, Any] = msgspec.json.decode(body)
        shown = {"job": tree["job"], "receipts": len(tree["receipts"]), "price_wei": tree["price_wei"]}
        emit(tree if as_json else shown | {"orders left": tree["left"]}, as_json)
    except (msgspec.MsgspecError, LookupError, TypeError) as error:
        raise GatewayError(f"What {chosen.base_url} answers is no order: {error}.") from error
    if not as_json:
        out.print(f"[dim]It is checked with the randomness of the next round. See it: lading audit show {_job(job)}[/]")
    return 0


@app.command
async def report(one: Path, other: Path, /, *, base_url: BaseUrl = None, as_json: Json = False) -> int:
    """Report a host that signed two different final receipts for one attempt.

    Parameters
    ----------
    one
        A file that holds one packed receipt, in hexadecimal.
    other
        The file with the other.
    """
    chosen = context.settings(base_url=base_url)
    receipts = [_file(path).decode(errors="replace").strip() for path in (one, other)]
    body = await _call(chosen.base_url, "POST", "/lading/v1/twins", {"receipts": receipts})
    try:
        tree = msgspec.json.decode(body)
        emit(tree if as_json else {name: tree[name] for name in ("host", "job", "attempt")}, as_json)
    except (msgspec.MsgspecError, LookupError, TypeError) as error:
        raise GatewayError(f"What {chosen.base_url} answers is no report: {error}.") from error
    return 0


def _row(tree: dict[str, Any]) -> dict[str, Any]:
    return {
        "job": tree["job"],
        "agent": tree["name"] or tree["agent"],
        "host": tree["host"][:10] + "…",
        "state": tree["state"],
        "verdict": tree["verdict"],
        "reason": tree["reason"],
        "at": when(tree["at"]),
    }


async def _call(base_url: str, method: str, path: str, body: Any = None, api_key: str = "") -> bytes:
    root = root_of(base_url)
    headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        async with httpx.AsyncClient(base_url=root, timeout=30, headers=headers) as http:
            response = await http.request(method, path, json=body)
    except httpx.HTTPError as error:
        raise unreachable(root, error) from error
    if response.status_code not in (200, 201, 202):
        raise refused(response)
    return response.content


def _record(body: bytes, where: str) -> AuditRecord:
    if len(body) > MAX_RECORD:
        raise BadFile(f"The record from {where} is larger than {MAX_RECORD} bytes.")
    try:
        return msgspec.json.decode(body, type=AuditRecord)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadFile(
            f"What {where} holds is no audit record: {error}.", hint="Give a job's id or a saved record."
        ) from None


def _file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_RECORD + 1)
    except OSError as error:
        raise BadFile(f"{path} cannot be read ({error.strerror}).") from error


def _job(text: str) -> str:
    try:
        return to_hex(digest(text))
    except ValueError as error:
        raise BadFile(f"{text[:80]!r} is neither a job's id nor a file: {error}.") from None


def _domain(path: Path) -> Domain | None:
    """The court that this machine knows; without a deployment record the audit's own word is taken."""
    if not path.exists():
        return None
    try:
        return deployments.load(path).court_domain
    except LadingError:
        return None
