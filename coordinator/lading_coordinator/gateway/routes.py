"""Which call goes where: the data plane by exact path, everything else to the ASGI application on the same port."""

from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import unquote

from lading_coordinator.errors import ApiError
from lading_coordinator.gateway.connection import App, Request
from lading_coordinator.gateway.openai import Gateway
from lading_coordinator.gateway.reply import Reply


class Routes:
    """The application that the connections call."""

    def __init__(self, gateway: Gateway, rest: App | None = None) -> None:
        self._gateway = gateway
        self._rest = rest
        self._calls: dict[tuple[str, str], Callable[[Request, Reply], Coroutine[Any, Any, None]]] = {
            ("POST", "/v1/chat/completions"): gateway.chat,
            ("POST", "/v1/completions"): gateway.complete,
            ("POST", "/v1/responses"): gateway.respond,
            ("POST", "/v1/embeddings"): gateway.embed,
            ("POST", "/lading/v1/call"): gateway.call,
            ("GET", "/v1/models"): gateway.models.show_all,
        }
        self._paths = {path for _, path in self._calls}

    def __call__(self, request: Request, reply: Reply) -> Coroutine[Any, Any, None] | None:
        call = self._calls.get((request.method, request.path))
        if call is not None:
            return call(request, reply)
        if request.path.startswith("/v1/") or request.path in self._paths:
            return self._other(request, reply)
        if self._rest is not None:
            return self._rest(request, reply)
        raise ApiError(404, "unknown_path", f"There is nothing at {request.path}.")

    async def _other(self, request: Request, reply: Reply) -> None:
        model = request.path.removeprefix("/v1/models/")
        if request.method == "GET" and model and model != request.path:
            await self._gateway.models.show(request, reply, unquote(model))
        elif request.path in self._paths or model != request.path:
            raise ApiError(405, "method_not_allowed", f"{request.path} does not take {request.method}.")
        else:
            raise unknown_path(request.path)


def unknown_path(path: str) -> ApiError:
    if path.startswith("/v1/responses/"):
        why, hint = "This network keeps no answers: there is none to fetch.", "Ask again with the whole conversation."
        return ApiError(404, "unknown_path", why, hint=hint)
    hint = "It serves /v1/chat/completions, /v1/completions, /v1/responses, /v1/embeddings and /v1/models."
    return ApiError(404, "unknown_path", f"This network does not serve {path}.", hint=hint)
