"""The entry point: names the commands, turns errors into one line and an exit code. No traceback reaches a person."""

import asyncio
import os
import sys

from cyclopts import App, CycloptsError, Parameter

from lading import __version__
from lading.cli.output import FAILURE, USAGE, err, report, report_bug
from lading_protocol.errors import LadingError

app = App(
    name="lading",
    help="The freight network for AI agents: call any model, pay by the token, know that the answer is genuine.",
    version=__version__,
    default_parameter=Parameter(negative_iterable=()),  # no --empty-NAME beside every list
)
app.command("lading.cli.consume:run", name="run", help="Ask a model, and see the answer as it comes.")
app.command("lading.cli.consume:models", name="models", help="List the models on offer with their prices.")
app.command("lading.cli.wallet:app", name="wallet", help="Keys, deposits, spending sessions and channels.")
app.command("lading.cli.stake:app", name="stake", help="What your operators have at stake.")
app.command("lading.cli.bid:app", name="bid", help="Bid for a share of an agent's revenue, or a place in the index.")
app.command("lading.cli.lease:app", name="lease", help="Reserve capacity on a host, paid as it is served.")
app.command("lading.cli.income:earnings", name="earnings", help="What is due to you, in every role.")
app.command("lading.cli.income:settle", name="settle", help="Take everything that is due to you.")
app.command("lading.cli.receipt:app", name="receipt", help="Check what a host signed for.")
app.command("lading.cli.audit:app", name="audit", help="What spot checks found, and how sure they are.")
app.command("lading.cli.agent:app", name="agent", help="Publish agents and look into packages.")
app.command("lading.cli.chain:app", name="chain", help="A local chain for development, and the contracts on it.")
app.command("lading.cli.network:app", name="network", help="Keep a network to yourselves.")
app.command("lading_node.cli:app", name="node", help="Put this machine to work.")
app.command("lading_coordinator.cli:app", name="coordinator", help="Run a gateway with its index and its audits.")

_EXTRAS = {
    "lading_node": "node",
    "lading_coordinator": "coordinator",
    "dns": "discovery",
    "zeroconf": "discovery",
    "onnx": "publisher",
    "jsonschema": "publisher",
    "onnxruntime": "node",
    "onnxruntime_genai": "node",
    "numpy": "node",
    "tokenizers": "node",
    "fastapi": "coordinator",
    "starlette": "coordinator",
    "httptools": "coordinator",
    "prometheus_client": "coordinator",
    "py_ecc": "coordinator",
    "jinja2": "coordinator",
    "eth": "chain",
    "eth_tester": "chain",
}


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code; the installed script passes it to the system."""
    given = sys.argv[1:] if arguments is None else arguments
    as_json = "--json" in given
    try:
        result = app(
            given, result_action="return_value", backend="asyncio", exit_on_error=False, print_error=not as_json
        )
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except CycloptsError as error:
        if not as_json:
            return USAGE  # cyclopts has printed what is wrong
        return report(LadingError(f"{error}", code="usage", hint="See the command's --help."), as_json)
    except LadingError as error:
        return report(error, as_json)
    except ImportError as error:
        return _missing(error, as_json)
    except BrokenPipeError:
        # Whoever read our output has left (`| head`); Python must not complain again when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILURE
    except OSError as error:
        return _system(error, as_json)
    except (KeyboardInterrupt, asyncio.CancelledError):
        err.print("stopped")
        return FAILURE
    except Exception as error:
        return report_bug(error, as_json)


def _system(error: OSError, as_json: bool) -> int:
    """The machine said no to a file: name it. Anything else is not expected here."""
    if error.filename is None or error.strerror is None:
        return report_bug(error, as_json)
    hint = "Check the path, its permissions and the free space; nothing else was changed."
    return report(LadingError(f"{error.filename}: {error.strerror}.", code="system", hint=hint), as_json)


def _missing(error: ImportError, as_json: bool) -> int:
    """A plain install carries only the consumer's parts: say which extra brings the rest."""
    cause = error.__cause__ if isinstance(error.__cause__, ImportError) else error
    module = (cause.name or "").split(".")[0]
    if module not in _EXTRAS:
        return report_bug(error, as_json)
    hint = f"Run: pip install 'lading[{_EXTRAS[module]}]'"
    what = LadingError(f"This command needs {module}, which is not installed.", code="not_installed", hint=hint)
    return report(what, as_json)


if __name__ == "__main__":
    sys.exit(main())
