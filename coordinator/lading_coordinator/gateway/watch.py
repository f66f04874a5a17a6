"""Watches one job for the metrics, and turns what ends it into what callers read. Costs nothing per token."""

import time
from types import TracebackType

from lading.dispatch import Moved
from lading_coordinator.gateway.refusals import as_api_error
from lading_coordinator.metrics import Metrics
from lading_protocol.errors import LadingError


class JobWatch:
    """Around a job's events. A LadingError leaves it as an ApiError."""

    __slots__ = ("_began", "_code", "_given", "_metrics", "_operation", "_waits")

    def __init__(self, metrics: Metrics, operation: str, given: str) -> None:
        """`given` is what the request calls its prompt."""
        self._metrics = metrics
        self._operation = operation
        self._given = given
        self._code = "cancelled"
        self._waits = True
        self._began = 0.0

    def __enter__(self) -> "JobWatch":
        self._began = time.perf_counter()
        self._metrics.began.inc()
        return self

    def first(self) -> None:
        """The first piece is here; further calls change nothing."""
        if self._waits:
            self._waits = False
            self._metrics.first_of(self._operation).observe(time.perf_counter() - self._began)

    def moved(self, event: Moved) -> None:
        self._metrics.moved.labels(event.code[:32]).inc()

    def ended(self) -> None:
        self._code = "ok"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        refusal = as_api_error(error, self._given) if isinstance(error, LadingError) else None
        self._metrics.began.inc(-1)
        self._metrics.jobs_of(self._operation, refusal.code if refusal else self._code).inc()
        if refusal is not None and refusal is not error:
            raise refusal from error
