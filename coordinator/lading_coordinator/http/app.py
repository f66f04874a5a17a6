"""The control plane as a FastAPI application: sessions, records, audits, health, metrics and the status page.

It speaks of facts only; every error has the same shape as the data plane's.
"""

import contextlib
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, Response
from starlette.exceptions import HTTPException

from lading_coordinator.core.answer import error_body
from lading_coordinator.core.bucket import Bucket
from lading_coordinator.errors import ApiError, LedgerFailed, bad_request
from lading_coordinator.http.audits import AuditViews, ordered
from lading_coordinator.http.market import MarketViews
from lading_coordinator.http.page import render, render_market
from lading_coordinator.http.views import Views
from lading_protocol.errors import LadingError
from lading_protocol.ids import address, from_hex, to_hex

SESSIONS_A_MINUTE = 12
TWINS_A_MINUTE = 12
MAX_LISTED = 500
T = TypeVar("T")


class _NewSession(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    payer: str


class _Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    job: str


class _Pair(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    receipts: tuple[str, str]


def create_app(views: Views, draining: Callable[[], bool] = lambda: False) -> FastAPI:
    app = FastAPI(title="Lading coordinator", openapi_url="/lading/v1/openapi.json", docs_url=None, redoc_url=None)
    _health(app, views, draining)
    _sessions(app, views)
    _records(app, views)
    _audits(app, views)
    _errors(app)
    return app


def _health(app: FastAPI, views: Views, draining: Callable[[], bool]) -> None:
    @app.get("/healthz")
    async def healthz() -> Response:
        """Alive: the process answers."""
        return _json(views.health())

    @app.get("/readyz")
    async def readyz() -> Response:
        """Ready: a request could be served. The chain may be away; that alone does not stop serving."""
        tree = views.ready()
        ready = bool(tree["hosts"] or tree["elsewhere"]) and not draining()
        return _json(tree | {"ready": ready, "draining": draining()}, 200 if ready else 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(await views.parts.metrics_text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/")
    async def page() -> Response:
        with contextlib.suppress(LedgerFailed):  # the page shows what is stored
            await views.parts.ledger.flush()
        return HTMLResponse(render(views))

    @app.get("/market")
    async def market() -> Response:
        return HTMLResponse(render_market(views))


def _sessions(app: FastAPI, views: Views) -> None:
    bucket = Bucket(SESSIONS_A_MINUTE, 60.0)

    @app.post("/lading/v1/sessions")
    async def create(request: Request) -> Response:
        """{payer} gives {api_key, session, consent}: the payer authorizes `session` on chain, then the key works."""
        who = request.client.host if request.client else ""
        wait = bucket.take(who, views.parts.clock())
        if wait:
            raise ApiError(
                429, "too_many_sessions", "Too many new sessions from this address.", retry_after=int(wait) + 1
            )
        try:
            payer = address(msgspec.json.decode(await request.body(), type=_NewSession).payer)
        except (msgspec.MsgspecError, ValueError) as error:
            raise bad_request(
                f"The body does not read: {error}.", param="payer", hint='Send {"payer": "0x..."}, a 20-byte address.'
            ) from None
        made = views.parts.sessions.create(payer)
        tree = {
            "api_key": made.api_key,
            "session": to_hex(made.session),
            "consent": to_hex(made.consent),
            "payer": to_hex(payer),
        }
        return _json(tree, 201)

    @app.get("/lading/v1/session")
    async def session(request: Request) -> Response:
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        seat = await views.parts.sessions.seat(token.strip() if kind.lower() == "bearer" else "")
        with contextlib.suppress(LedgerFailed):
            await views.parts.ledger.flush()
        return _json(views.session(seat))


def _records(app: FastAPI, views: Views) -> None:
    @app.get("/lading/v1/network")
    async def network() -> Response:
        return _json(views.network())

    @app.get("/lading/v1/hosts")
    async def hosts() -> Response:
        return _json({"hosts": views.hosts()})

    @app.get("/lading/v1/regions")
    async def regions() -> Response:
        """What is indexed here in full, what other coordinators told of the rest, and the memory that it takes."""
        return _json(views.parts.regions.tree())

    @app.get("/lading/v1/jobs/{job}")
    async def job(job: str) -> Response:
        return _json(await views.job(_job_id(job)))

    @app.get("/lading/v1/receipts/{job}")
    async def receipts(job: str) -> Response:
        tree = await views.job(_job_id(job))
        signed = [one for one in tree["parts"] if one["receipt"]]
        receipts, marks = [one["receipt"] for one in signed], [one["marks"] for one in signed]
        return _json({"job": tree["job"], "receipts": receipts, "marks": marks})

    @app.get("/lading/v1/market")
    async def market(limit: str = "50") -> Response:
        """Auctions, promotions, tables, leases and settlements, newest first, from the contracts' events."""
        return _json(MarketViews(views).tree(_limit(limit)))


def _audits(app: FastAPI, views: Views) -> None:
    bucket = Bucket(TWINS_A_MINUTE, 60.0)

    @app.get("/lading/v1/audits")
    async def audits(limit: str = "50") -> Response:
        return _json(views.audits(_limit(limit)))

    @app.get("/lading/v1/audits/{job}")
    async def audit(job: str) -> Response:
        """The whole record of a job's audits, for anybody: `lading audit show` reads and checks it."""
        return _json(await AuditViews(views).record(_job_id(job)))

    @app.post("/lading/v1/audits")
    async def order(request: Request) -> Response:
        """{job}: have a job audited that this API key's session paid for."""
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        seat = await views.parts.sessions.seat(token.strip() if kind.lower() == "bearer" else "")
        job = _job_id(_read(await request.body(), _Order).job)
        return _json(ordered(await views.parts.audits.orders.buy(seat, job), job), 202)

    @app.post("/lading/v1/twins")
    async def twins(request: Request) -> Response:
        """{receipts: [one, other]}: two different final receipts of one host for one attempt."""
        who = request.client.host if request.client else ""
        wait = bucket.take(who, views.parts.clock())
        if wait:
            raise ApiError(429, "too_many_reports", "Too many reports from this address.", retry_after=int(wait) + 1)
        one, other = (_packed(text) for text in _read(await request.body(), _Pair).receipts)
        twin = views.parts.audits.twins.report(one, other)
        return _json({"host": to_hex(twin.host), "job": to_hex(twin.job), "attempt": twin.attempt}, 201)


def _errors(app: FastAPI) -> None:
    @app.exception_handler(LadingError)
    async def lading(request: Request, error: Exception) -> Response:
        assert isinstance(error, LadingError)
        known = error if isinstance(error, ApiError) else ApiError(503, error.code, error.message, hint=error.hint)
        headers = {} if known.retry_after is None else {"retry-after": str(known.retry_after)}
        return Response(error_body(known), known.status, headers, "application/json")

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        code = {404: "unknown_path", 405: "method_not_allowed"}.get(error.status_code, "http_error")
        known = ApiError(error.status_code, code, f"{request.method} {request.url.path}: {error.detail}.")
        return Response(error_body(known), known.status, error.headers, "application/json")


def _json(tree: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(tree), status, media_type="application/json")


def _limit(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text[:9]) <= MAX_LISTED:
        raise bad_request(f"'limit' is a number from 1 to {MAX_LISTED}.", param="limit")
    return int(text)


def _read(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise bad_request(f"The body does not read: {error}.") from None


def _packed(text: str) -> bytes:
    try:
        return from_hex(text[:4096], len(text[:4096].removeprefix("0x")) // 2)
    except ValueError as error:
        raise bad_request(f"Not a receipt: {error}.", param="receipts") from None


def _job_id(text: str) -> bytes:
    try:
        return from_hex(text, 32)
    except ValueError as error:
        raise bad_request(f"Not a job id: {error}.", param="job", hint="It is the header x-lading-job.") from None
