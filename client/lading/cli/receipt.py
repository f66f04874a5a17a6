"""`lading receipt`: what hosts signed for a job, checked on this machine alone."""

import time
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import App, Parameter

from lading.cli import context
from lading.cli.flags import Home, Json, Record
from lading.cli.output import emit, emit_rows
from lading.core.receipts import FINISHES, Checked, check, check_job
from lading.errors import BadFile
from lading_contracts import deployment as deployments
from lading_protocol.eip712 import unpack
from lading_protocol.errors import BadMessage, BadReceipt
from lading_protocol.ids import digest, short, to_hex
from lading_protocol.pricing import format_amount
from lading_protocol.receipts import Finish, Receipt, SignedReceipt

app = App(name="receipt", help="Check what a host signed for.")


class Proof(msgspec.Struct, frozen=True):
    """What a gateway returns at /lading/v1/receipts/JOB, and what `lading run --receipt` writes (with the tokens).

    `marks` has for each receipt what came with it, in hex. `jobs` are several where the answer went on at another
    gateway.
    """

    receipts: tuple[str, ...]
    job: str | None = None
    ids: tuple[Annotated[int, msgspec.Meta(ge=0, lt=2**32)], ...] | None = None
    marks: tuple[str, ...] = ()
    jobs: tuple[str, ...] = ()


@app.command
def verify(
    file: Path,
    /,
    *,
    ids: Annotated[Path | None, Parameter(help="A JSON list of the job's output token ids, to compare.")] = None,
    home: Home = None,
    deployment: Record = None,
    as_json: Json = False,
) -> int:
    """Check receipts offline: who signed, for what, and that the amount follows from prices and tokens.

    Parameters
    ----------
    file
        What `lading run --receipt FILE` wrote, or a coordinator returned at /lading/v1/receipts/JOB.
    """
    chosen = context.settings(home=home, deployment=deployment)
    domain = deployments.load(chosen.deployment_path).court_domain
    proof = _read(file, Proof)
    tokens = _read(ids, list[Annotated[int, msgspec.Meta(ge=0, lt=2**32)]]) if ids is not None else proof.ids
    if not proof.receipts:
        raise BadFile(f"{file} holds no receipt.", hint="A host that died before its first 32 tokens leaves none.")
    marks = [_marks(text, file) for text in proof.marks] or [()] * len(proof.receipts)
    if len(marks) != len(proof.receipts):
        raise BadFile(f"{file} has {len(marks)} marks for {len(proof.receipts)} receipts.")
    signed = [_unpack(text, file) for text in proof.receipts]
    checked = [check(one, domain, tokens, its) for one, its in zip(signed, marks, strict=True)]
    faults = check_job([one.receipt for one in checked], _jobs(proof, file))
    _show(checked, faults, as_json)
    wrong = [f"receipt {n}: {fault}" for n, one in enumerate(checked) for fault in one.faults] + list(faults)
    if wrong:
        raise BadReceipt(f"{file} does not hold: {'; '.join(wrong)}.")
    return 0


def _show(checked: list[Checked], faults: tuple[str, ...], as_json: bool) -> None:
    whole = sum(one.receipt.amount for one in checked)
    holds = not faults and not any(one.faults for one in checked)
    first = checked[0].receipt
    if as_json:
        rows = [_tree(one) for one in checked]
        emit({"holds": holds, "amount_wei": str(whole), "faults": list(faults), "receipts": rows}, True)
        return
    shown = {"job": to_hex(first.job), "agent": to_hex(first.agent), "paid by": to_hex(first.signer)}
    compared = "compared with the commitment" if all(one.ids for one in checked) else "not compared (no token ids)"
    emit({"holds": "yes" if holds else "NO"} | shown | {"tokens": compared}, False)
    emit_rows([_row(one) for one in checked], False, "")


def _row(one: Checked) -> dict[str, Any]:
    receipt = one.receipt
    last = receipt.first + receipt.output_tokens - 1
    return {
        "attempt": receipt.attempt,
        "host": short(receipt.host),
        "prompt": receipt.prompt_tokens if receipt.first == 0 else "(billed before)",
        "tokens": f"{receipt.first} to {last}" if receipt.output_tokens else "none",
        "amount": format_amount(receipt.amount, 18),
        "ended": _finish(receipt),
        "signed": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(receipt.issued_at)) if not one.faults else "NO",
    }


def _tree(one: Checked) -> dict[str, Any]:
    tree = {
        name: to_hex(value) if isinstance(value, bytes) else value
        for name, value in msgspec.structs.asdict(one.receipt).items()
    }
    wei = {name: str(tree[name]) for name in ("price_in", "price_out", "amount")}
    return tree | wei | {"finish": _finish(one.receipt), "ids_compared": one.ids, "faults": list(one.faults)}


def _finish(receipt: Receipt) -> str:
    return Finish(receipt.finish).name.lower() if receipt.finish in FINISHES else str(receipt.finish)


def _read(path: Path, kind: Any) -> Any:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except OSError as error:
        raise BadFile(f"{path} cannot be read ({error.strerror}).") from error
    except msgspec.MsgspecError as error:
        raise BadFile(f"{path} does not read: {error}.", hint="Give the JSON as it was returned.") from error


def _unpack(text: str, file: Path) -> SignedReceipt:
    try:
        return unpack(Receipt, bytes.fromhex(text.removeprefix("0x")))
    except (ValueError, BadMessage) as error:
        raise BadReceipt(f"{file} holds something that is no receipt: {error}") from error


def _marks(text: str, file: Path) -> tuple[bytes, ...]:
    try:
        data = bytes.fromhex(text.removeprefix("0x"))
    except ValueError as error:
        raise BadFile(f"{file} holds marks that are no hex: {error}.") from error
    return tuple(data[at : at + 32] for at in range(0, len(data), 32))


def _jobs(proof: Proof, file: Path) -> list[bytes]:
    try:
        return [digest(one) for one in proof.jobs or ([proof.job] if proof.job is not None else [])]
    except ValueError as error:
        raise BadFile(f"The job in {file} is no id: {error}.") from None
