"""Turns what the dispatcher raises into what an OpenAI client understands: a status, a stable code, what to do."""

from lading.errors import JobLost, NoHost, OutOfFunds, PurseError
from lading_coordinator.errors import ApiError
from lading_protocol.errors import LadingError

RETRY_SECONDS = 1


def as_api_error(error: LadingError, given: str) -> ApiError:
    """`given` is what the request calls its prompt."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, OutOfFunds):
        message = f"{error.message} Missing: {error.missing} wei."
        headers = ((b"x-lading-missing", b"%d" % error.missing),)
        return ApiError(402, "insufficient_funds", message, hint=error.hint, headers=headers)
    if isinstance(error, NoHost):
        return _no_host(error)
    if isinstance(error, JobLost):
        return ApiError(502, error.code, error.message, hint=error.hint)
    if isinstance(error, PurseError):
        return ApiError(503, error.code, "The coordinator cannot store vouchers now.", hint="Try again later.")
    if error.code == "too_long":
        return ApiError(400, "context_length_exceeded", error.message, param=given, hint="Shorten it or ask for less.")
    return ApiError(400, error.code, error.message, hint=error.hint)


def _no_host(error: NoHost) -> ApiError:
    """Hosts that are only full now are worth waiting for; anything else is not."""
    if error.reasons and all("(busy)" in reason for reason in error.reasons):
        return ApiError(
            429,
            "overloaded",
            "Every host of this model is busy.",
            hint=f"Try again after {RETRY_SECONDS} s.",
            retry_after=RETRY_SECONDS,
        )
    return ApiError(503, error.code, error.message, hint=error.hint, retry_after=RETRY_SECONDS)
