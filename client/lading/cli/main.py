"""The entry point: names the commands, turns errors into one line and an exit code."""

import asyncio
import sys

from cyclopts import App, CycloptsError

from lading import __version__
from lading.cli.output import FAILURE, USAGE, err, report
from lading_protocol.errors import LadingError

app = App(
    name="lading",
    help="The freight network for AI agents: call any model, pay by the token, know that the answer is genuine.",
    version=__version__,
)
app.command("lading.cli.consume:run", name="run", help="Ask a model, and see the answer as it comes.")
app.command("lading.cli.consume:models", name="models", help="List the models on offer with their prices.")
app.command("lading.cli.wallet:app", name="wallet", help="Keys, deposits and spending sessions.")
app.command("lading.cli.agent:app", name="agent", help="Publish agents and look into packages.")
app.command("lading.cli.chain:app", name="chain", help="A local chain for development, and the contracts on it.")
app.command("lading_node.cli:app", name="node", help="Put this machine to work.")
app.command("lading_coordinator.cli:app", name="coordinator", help="Run a gateway with its index and its audits.")


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code; the installed script passes it to the system."""
    try:
        result = app(arguments, result_action="return_value", backend="asyncio", exit_on_error=False)
        return result if isinstance(result, int) else 0
    except CycloptsError:
        return USAGE  # cyclopts has printed what is wrong
    except LadingError as error:
        return report(error)
    except ImportError as error:
        return _missing(error)
    except (KeyboardInterrupt, asyncio.CancelledError):
        err.print("stopped")
        return FAILURE


def _missing(error: ImportError) -> int:
    """A plain install carries only the consumer's parts: say which extra brings the rest."""
    cause = error.__cause__ if isinstance(error.__cause__, ImportError) else error
    module = (cause.name or "").split(".")[0]
    extras = {
        "lading_node": "node",
        "lading_coordinator": "coordinator",
        "libp2p": "libp2p",
        "onnx": "publisher",
        "onnxruntime": "node",
        "onnxruntime_genai": "node",
        "fastapi": "coordinator",
        "httptools": "coordinator",
        "eth": "chain",
        "eth_tester": "chain",
    }
    if module not in extras:
        raise error
    err.print(f"[bold red]error[/] [dim]not_installed[/]  This command needs {module}, which is not installed.")
    err.print(f"       Run: pip install 'lading[{extras[module]}]'", markup=False)
    return FAILURE


if __name__ == "__main__":
    sys.exit(main())
