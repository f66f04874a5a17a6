"""What a command prints, and how it ends: a table or JSON on standard output, errors on standard error.

Exit codes: 0 ok, 1 failure, 2 usage, 3 unhealthy, 4 refused, 5 network.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table

from lading_protocol.errors import LadingError

FAILURE, USAGE, UNHEALTHY, REFUSED, NETWORK = 1, 2, 3, 4, 5
_USAGE = {"bad_settings", "bad_key", "bad_amount", "bad_manifest", "bad_project", "bad_request"}
_REFUSED = {"insufficient_funds", "reverted", "no_host", "refused", "invalid_api_key"}

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def exit_code(error: LadingError) -> int:
    code = error.code
    if code in _USAGE:
        return USAGE
    if code in _REFUSED:
        return REFUSED
    if code.startswith(("net", "chain_unreachable")):
        return NETWORK
    return FAILURE


def report(error: LadingError) -> int:
    """One line: what and why, then what to do. Returns the exit code."""
    err.print(f"[bold red]error[/] [dim]{error.code}[/]  {error.message}", soft_wrap=True)
    if error.hint:
        err.print(f"       {error.hint}", soft_wrap=True)
    return exit_code(error)


def emit(values: Mapping[str, Any], as_json: bool) -> None:
    """A flat record."""
    if as_json:
        print(json.dumps(values))
        return
    table = Table.grid(padding=(0, 2))
    for name, value in values.items():
        table.add_row(f"[dim]{name.replace('_', ' ')}[/]", str(value))
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
        table.add_row(*(str(value) for value in row.values()))
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
        progress.add_task(title, total=None)
        yield progress
