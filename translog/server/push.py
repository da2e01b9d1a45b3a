"""What senders that push on their own, without a person to look, are answered.

Rules: they drop what they sent on 409 and 500 and keep it on 429, 502, 503 and 504. So trouble of ours is 503 with Retry-After,
never 500, and nothing is a conflict; what can never be taken is 400, 401, 403, 413 or 415.
"""

from collections.abc import Awaitable, Callable
from functools import wraps
from http import HTTPStatus

import structlog
from aiohttp import web

from translog.errors import ConflictError, PermissionDeniedError, PushbackError, TranslogError
from translog.server.api import Api, Handler
from translog.server.problem import status_of

_logger = structlog.get_logger()

_RETRY_MS = 10_000

_Handler = Callable[[Api, web.Request], Awaitable[web.StreamResponse]]


def push(handler: _Handler) -> Handler:
    """The handler with the errors that push senders understand."""

    @wraps(handler)
    async def handle(api: Api, request: web.Request) -> web.StreamResponse:
        try:
            return await handler(api, request)
        except (web.HTTPException, ConnectionError):
            raise
        except Exception as error:
            raise for_push(error, request) from error

    return handle


def for_push(error: Exception, request: web.Request) -> TranslogError:
    """The error to answer instead: itself, unless its status would make a push sender drop what it sent without need."""
    if isinstance(error, ConflictError):
        return PermissionDeniedError(error.detail, hint=error.hint, code=error.code)
    if isinstance(error, TranslogError) and status_of(error) < HTTPStatus.INTERNAL_SERVER_ERROR:
        return error
    if isinstance(error, TranslogError) and status_of(error) == HTTPStatus.SERVICE_UNAVAILABLE:
        return error
    _logger.error("a push failed", method=request.method, path=request.path[:200], exc_info=error)
    return PushbackError(
        "the log cannot take this now", hint="keep it and send it again later", code="try-again", retry_after_ms=_RETRY_MS
    )
