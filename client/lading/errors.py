"""Errors of the client package, with the words that a consumer will read."""

from collections.abc import Sequence

from lading_protocol.errors import LadingError
from lading_protocol.ids import Wei


class NoHost(LadingError):
    """No host can take the request now. `reasons` says why each known one was passed over."""

    code = "no_host"
    hint = "Try again in a moment, raise the price limit, or choose another model."

    def __init__(self, reasons: Sequence[str]) -> None:
        why = "; ".join(reason.rstrip(".") for reason in reasons) if reasons else "no host offers it"
        super().__init__(f"No host can take this request: {why}.")
        self.reasons = tuple(reasons)


class OutOfFunds(LadingError):
    """The deposit or the session's cap does not cover the request. `missing` is in wei."""

    code = "insufficient_funds"
    hint = "Deposit more, raise the session's cap, or ask for fewer tokens."

    def __init__(self, missing: Wei, shown: str) -> None:
        super().__init__(f"This request could cost {shown} more than you may still spend.")
        self.missing = missing


class JobLost(LadingError):
    """Every host that could go on has failed after part of the answer was delivered. What was delivered is paid for."""

    code = "job_lost"
    hint = "Ask again; only the delivered tokens were charged."


class Quarantined(LadingError):
    """Two hosts were lost while they worked on this request, so no other one is given it for a while."""

    code = "job_quarantined"
    hint = "Change the request: hosts break under it as it is. What was delivered is all that was charged."

    def __init__(self, tokens: int, seconds: float) -> None:
        after = f" after {tokens} tokens" if tokens else ""
        super().__init__(
            f"Two hosts were lost while they worked on this request, so it ends{after} and is kept from others for"
            f" {max(1, round(seconds))} s."
        )


class BadRequest(LadingError):
    """The request can never be served as it is."""

    code = "bad_request"
    hint = "Correct the request."


class PurseError(LadingError):
    """The store of signed vouchers cannot be used."""

    code = "purse"
    hint = "Free disk space or choose another data folder; nothing that was signed is lost."


class BadSettings(LadingError):
    """A setting is missing or wrong."""

    code = "bad_settings"
    hint = "Correct the named setting in the file, the environment or the flag."


class BadPackage(LadingError):
    """An agent package does not match its manifest."""

    code = "bad_package"
    hint = "Fetch it again, from another peer if it happens twice."


class NoSource(BadPackage):
    """No linked peer gives what a package lacks. The message says of each why not."""

    code = "no_source"
    hint = "Link to a peer that holds the agent, such as its publisher's coordinator. What has arrived is kept."


class BadDelta(BadPackage):
    """A delta does not read, or does not make the file it names."""

    code = "bad_delta"
    hint = "Fetch the whole file."


class BadArtifact(BadPackage):
    """An OCI artifact is not an agent's, or does not hold what it says."""

    code = "bad_artifact"
    hint = "Export it again with `lading agent export`."


class StoreFull(LadingError):
    """The package store has no room."""

    code = "store_full"
    hint = "Free disk space, raise the store's quota, or remove agents you no longer serve."


class BadProject(LadingError):
    """An agent project cannot be turned into a package."""

    code = "bad_project"
    hint = "Correct agent.toml; `lading agent init` writes an example."


class PublishRefused(LadingError):
    """A package was not taken by the chain's registry or by a coordinator."""

    code = "refused"
    hint = "Publish with the key that owns the agent, on the chain that the coordinator uses."


class GatewayError(LadingError):
    """A coordinator answered with an error; its own words are in the message."""

    code = "gateway"
    hint = "Check the base URL and the API key."


class UnknownModel(LadingError):
    """Nobody offers an agent of this name."""

    code = "model_not_found"
    hint = "See `lading models` for what is on offer."


class UnknownJob(LadingError):
    """No record of this job."""

    code = "unknown_job"
    hint = "Ask the coordinator that served it, or keep receipts with `lading run --receipt FILE`."


class FolderBusy(LadingError):
    """Another program spends from the same home folder."""

    code = "folder_busy"
    hint = "Wait until it is done, or choose a home folder with a key of its own."


class BadFile(LadingError):
    """A file that a command was given does not hold what it should."""

    code = "bad_file"
    hint = "Check the path."
