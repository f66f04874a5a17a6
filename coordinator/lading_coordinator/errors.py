"""Every error of the coordinator. `ApiError` is what a caller of the HTTP API sees, in the shape OpenAI gives its own.

Each says what went wrong, why, and what to do; `code` is stable.
"""

import errno

from lading_protocol.errors import LadingError


class CoordinatorError(LadingError):
    """The coordinator cannot start or go on."""

    code = "coordinator"


class BadSettings(CoordinatorError):
    """A setting is missing or makes no sense."""

    code = "bad_settings"
    hint = "Correct it in the settings file, the environment or on the command line."


class FolderBusy(CoordinatorError):
    """Another coordinator runs on the same data folder."""

    code = "folder_busy"
    hint = "Stop the other one, or choose another data folder."


class PortInUse(CoordinatorError):
    """Another program listens where the coordinator was told to."""

    code = "port_in_use"
    hint = "Stop the other program, or choose another port (0 takes any free one)."


def cannot_listen(host: str, port: int, error: OSError) -> CoordinatorError:
    """What the system says of a port, in words."""
    if error.errno == errno.EADDRINUSE:
        return PortInUse(f"Another program listens on {host}:{port} already.")
    return CoordinatorError(
        f"Cannot listen on {host}:{port}: {error.strerror}.", hint="Choose an address of this machine."
    )


class LedgerFailed(CoordinatorError):
    """The job ledger cannot be used (a full disk, a read-only folder, a server that is away)."""

    code = "ledger_failed"
    hint = "Free space, or bring its server back; running answers go on, their records are kept in memory until then."


class ReleaseRefused(CoordinatorError):
    """A pointer or a yank does not count here."""

    code = "refused"
    hint = "Sign with the key that published the agent, on the chain that this coordinator uses."


class ApiError(LadingError):
    """An HTTP answer that is not a success. `kind` is OpenAI's `type`, `retry_after` is in seconds."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        hint: str = "",
        kind: str | None = None,
        param: str | None = None,
        retry_after: int | None = None,
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        super().__init__(message, hint=hint, code=code)
        self.status = status
        self.kind = kind or _KINDS.get(status, "server_error" if status >= 500 else "invalid_request_error")
        self.param = param
        self.retry_after = retry_after
        self.headers = headers


_KINDS = {401: "authentication_error", 402: "insufficient_quota", 403: "permission_error", 429: "rate_limit_error"}


def bad_request(message: str, *, param: str | None = None, code: str = "invalid_value", hint: str = "") -> ApiError:
    return ApiError(400, code, message, param=param, hint=hint)
