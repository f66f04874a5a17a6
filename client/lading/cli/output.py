"""What a command prints, and how it ends: a table or JSON on standard output, errors on standard error.

Exit codes: 0 ok, 1 failure, 2 usage, 3 unhealthy, 4 refused, 5 network. Text that came over the network is shown
without its markup and its control characters, so that no answer and no peer can write on the terminal what it likes.
"""

import json
import os
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table

from lading_protocol.errors import LadingError

FAILURE, USAGE, UNHEALTHY, REFUSED, NETWORK = 1, 2, 3, 4, 5
# What the caller typed, configured or sent is wrong.
_USAGE = {
    *(
        "usage",
        "bad_settings",
        "bad_key",
        "bad_keystore",
        "bad_amount",
        "bad_manifest",
        "bad_project",
        "bad_deployment",
    ),
    *("bad_request", "bad_file", "wrong_chain", "net_bad_endpoint", "invalid_value", "unsupported_parameter"),
    *("unsupported_operation", "context_length_exceeded", "too_long", "method_not_allowed", "unknown_path"),
}
# Somebody understood it and said no.
_REFUSED = {
    *("insufficient_funds", "no_gas_funds", "reverted", "no_host", "overloaded", "refused", "model_not_found"),
    *("invalid_api_key", "missing_api_key", "session_expired", "session_revoked", "session_not_authorized"),
    *("too_many_sessions", "unknown_job"),
}
# Codes of the network package that are this machine's own fault.
_LOCAL = {"net_port_in_use", "net_listen_failed"}
# What moves the cursor, sends commands to the terminal, or turns the reading direction.
_TURNING = (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_CONTROL = {code: "�" for code in (*range(32), *range(127, 160), *_TURNING) if chr(code) not in "\n\t"}
_LINE = _CONTROL | dict.fromkeys((9, 10, 8232, 8233), "�")

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def exit_code(error: LadingError) -> int:
    code = error.code
    if code in _USAGE:
        return USAGE
    if code in _REFUSED:
        return REFUSED
    if code.startswith(("net_", "chain_unreachable")) and code not in _LOCAL:
        return NETWORK
    return FAILURE


def plain(text: str) -> str:
    """Without control characters: a model's answer must not drive the terminal."""
    return text.translate(_CONTROL)


def line(text: str) -> str:
    """As `plain`, in one line: a name must not make itself a row of a table."""
    return text.translate(_LINE)


def report(error: LadingError, as_json: bool = False, status: int | None = None) -> int:
    """One line: what and why, then what to do. Returns the exit code, by the error where none is given."""
    return _tell(error.code, error.message, error.hint, exit_code(error) if status is None else status, as_json)


def report_bug(error: BaseException, as_json: bool = False) -> int:
    """An exception that nobody expected: one line, and where the rest of it was written."""
    told = "".join(traceback.format_exception(error))
    try:
        handle, path = tempfile.mkstemp(prefix="lading-", suffix=".log")
        with os.fdopen(handle, "w") as file:
            file.write(f"lading {' '.join(sys.argv[1:2])}, Python {sys.version.split()[0]}\n\n{told}")
        where = f"Please report it, with the file {path}."
    except OSError as no_file:
        where = f"Please report it (the details could not be written: {no_file.strerror})."
    reason = str(error).strip().splitlines()[:1]
    what = f"{type(error).__name__}: {reason[0]}" if reason else type(error).__name__
    return _tell("internal", f"This is a bug in Lading ({what}).", where, FAILURE, as_json)


def _tell(code: str, message: str, hint: str, status: int, as_json: bool) -> int:
    if as_json:
        body = {"code": code, "message": message, "hint": hint, "exit": status}
        print(json.dumps({"error": body}), file=sys.stderr)
        return status
    err.print(f"[bold red]error[/] [dim]{escape(code)}[/]  {escape(line(message))}", soft_wrap=True)
    if hint:
        err.print(f"       {escape(line(hint))}", soft_wrap=True)
    return status


def _word(value: object) -> str:
    """A value for a person: no Python."""
    match value:
        case bool():
            return "yes" if value else "no"
        case None:
            return ""
        case list() | tuple():
            return ", ".join(map(_word, value))
        case _:
            return str(value)


def emit(values: Mapping[str, Any], as_json: bool) -> None:
    """A flat record."""
    if as_json:
        print(json.dumps(values), flush=True)  # whoever started us through a pipe may wait for it
        return
    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column(overflow="fold")
    for name, value in values.items():
        table.add_row(f"[dim]{escape(line(name.replace('_', ' ')))}[/]", escape(line(_word(value))))
    out.print(table)


def emit_rows(rows: Sequence[Mapping[str, Any]], as_json: bool, empty: str) -> None:
    """A list of like records; `empty` is what a person reads when there is none."""
    if as_json:
        print(json.dumps(list(rows)))
        return
    if not rows:
        out.print(empty)
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in rows[0]:
        table.add_column(name.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*(escape(line(_word(value))) for value in row.values()))
    out.print(table)


@contextmanager
def transfer(title: str) -> Iterator[Progress]:
    """A progress bar with bytes, rate and time; silent where no terminal watches."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, transient=True, disable=not sys.stderr.isatty()) as progress:
        progress.add_task(escape(line(title)), total=None)
        yield progress
