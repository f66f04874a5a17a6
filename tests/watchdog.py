"""Ends a run whose test cannot be ended: the second line behind pytest-timeout.

That one raises an error from a signal, which fails the test and goes on with the next. But the error is lost in an
event loop of uvloop, in a task that takes it for one of its own, and in a thread that is waited for: such a test
would hang for ever. Some seconds later a thread without Python then shows where everything stands, and exits.
"""

import faulthandler
from collections.abc import Generator

import pytest
from _pytest.faulthandler import fault_handler_stderr_fd_key  # the run's own: what is fd 2 meanwhile is captured

GRACE_SECONDS = 30.0


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    limit = limit_of(item)
    if not limit:
        return (yield)
    stderr = item.config.stash[fault_handler_stderr_fd_key]
    faulthandler.dump_traceback_later(limit + GRACE_SECONDS, file=stderr, exit=True)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


def limit_of(item: pytest.Item) -> float:
    """Seconds that pytest-timeout gives the test; 0 for no limit."""
    mark = item.get_closest_marker("timeout")
    named = (mark.args[0] if mark.args else mark.kwargs.get("timeout")) if mark is not None else None
    if named is None:
        named = item.config.getoption("timeout")
    return float((item.config.getini("timeout") or 0) if named is None else named)
