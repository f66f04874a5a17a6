"""`lading network`: the key that keeps a network among its members."""

from pathlib import Path

from cyclopts import App

from lading.cli.flags import Json
from lading.cli.output import emit

app = App(name="network", help="Keep a network to yourselves.")


@app.command
def new_key(path: Path, /, *, as_json: Json = False) -> int:
    """Make the key of a private network, for every member's setting network_key. Whoever lacks it sees nothing.

    Parameters
    ----------
    path
        The file to write, which is for your eyes only; one that is there is never replaced.
    """
    from lading_net.private import make_key

    chosen = path.expanduser()
    make_key(chosen)
    emit({"network_key": str(chosen)}, as_json)
    return 0
