"""The outermost layer: who may call, how much may be sent, which headers every answer has, what is logged and counted.

Pure ASGI: with a middleware of another kind a client that hangs up is never noticed.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from starlette.middleware.cors import CORSMiddleware

from longstrand.serve.call import Call, Metrics, caller_of
from longstrand.serve.refusals import Refusal, refusal_from
from longstrand.serve.schemas import ServeOptions
from longstrand.serve.server import Server

logger = logging.getLogger("longstrand.serve")

App = Callable[[Any, Any, Any], Awaitable[None]]
Question = Callable[[Call, bytes], Awaitable[bytes]]
"""Gives the answer to the body of a POST."""
LOCAL = ("localhost", "127.0.0.1", "::1")
OPEN = ("/health/", "/static/", "/docs", "/openapi.json", "/favicon.ico")
"""What needs no token, beside the page itself."""
UPLOADS = "/v1/jobs"
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self' data: blob:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
HEADERS = [(b"x-content-type-options", b"nosniff"), (b"content-security-policy", CSP.encode()),
           (b"referrer-policy", b"no-referrer")]  # fmt: skip
SAFE = ("GET", "HEAD", "OPTIONS")


class Gate:
    """Wraps an app.

    Args:
        app: what answers.
        options: hosts, token and limits.
        metrics: what is counted.
        server: what the app answers from.
        questions: path to what answers a POST of JSON there without the app, whose routing and validation cost more
            than everything else about a short request.
    """

    def __init__(
        self, app: App, options: ServeOptions, metrics: Metrics, server: Server, questions: Mapping[str, Question]
    ) -> None:
        self.app, self.options, self.metrics, self.server, self.questions = app, options, metrics, server, questions
        self.inner: App = self._answer
        if options.cors:
            self.inner = CORSMiddleware(
                self._answer, allow_origins=list(options.cors), allow_methods=["*"], allow_headers=["*"]
            )
        self.hosts = {*LOCAL, options.host, *options.allow_host}
        self.is_local = options.host in LOCAL
        self.any_host = not self.is_local and not options.allow_host

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        started = time.monotonic()
        secret = headers.get(b"authorization", "").removeprefix("Bearer ") if self.options.token else ""
        address = (scope.get("client") or ("",))[0]
        call = Call(f"{random.getrandbits(128):032x}", caller_of(secret, address), started,
                    started + self._timeout(headers), receive, headers)  # fmt: skip
        scope["longstrand"] = call

        async def answer(message: Any) -> None:
            if message["type"] == "http.response.start":
                call.status = message["status"]
                timing = ", ".join(f"{name};dur={ms:.1f}" for name, ms in call.timing.items())
                more = [(b"x-request-id", call.request_id.encode()), *HEADERS]
                more += [(b"server-timing", timing.encode())] if timing else []
                message["headers"] = [*message.get("headers", []), *more]
            await send(message)

        self.server.watch.add(call)
        try:
            await self.inner(scope, receive, answer)
        finally:
            self.server.watch.calls.discard(call)
            path = scope["path"]
            route = path if path in self.questions else getattr(scope.get("route"), "path", None)
            route = route or ("/static" if call.status in (200, 304) else "other")
            self.metrics.count(route, call.status, time.monotonic() - call.started)
            call.write_log(scope["method"], route)
            del scope["longstrand"]  # it and what counts its body would keep each other until the next collection
            call.receive = receive

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        call: Call = scope["longstrand"]
        try:
            self._check(scope, call.headers)
            receive = self._counted(scope, receive, call)
            question = self.questions.get(scope["path"]) if scope["method"] == "POST" else None
            if question is None:
                await self.app(scope, receive, send)
            else:
                content = await question(call, await _body(call, receive))
                await _respond(send, 200, content, {"content-type": call.media})
        except Exception as error:
            await self._refuse(refusal_from(error), call, send)

    async def _refuse(self, refusal: Refusal, call: Call, send: Any) -> None:
        """Answer with an error; no frame that it came through may keep it, or the two would wait for the collector."""
        if refusal.status == 500:
            logger.exception("request %s failed", call.request_id)
        if not call.status:
            await _respond(send, refusal.status, refusal.body(call.request_id), refusal.headers())

    def _timeout(self, headers: Mapping[bytes, str]) -> float:
        try:
            wanted = float(headers.get(b"x-timeout", "nan"))
        except ValueError:
            wanted = math.nan
        return min(wanted, self.options.timeout) if wanted > 0 else self.options.timeout

    def _check(self, scope: Any, headers: Mapping[bytes, str]) -> None:
        """Refuse foreign hosts, foreign pages and callers without the token.

        Raises:
            Refusal: as said.
        """
        options, method, path = self.options, scope["method"], scope["path"]
        host = _place(f"//{headers.get(b'host', '')}")
        if not self.any_host and host[0] not in self.hosts:
            raise Refusal(403, "The server does not answer under this name; start it with --allow-host to allow it.")
        origin = headers.get(b"origin")
        if origin is not None and method not in SAFE and origin not in options.cors and _place(origin) != host:
            raise Refusal(403, "Another page may not call this server; start it with --cors to allow it.")
        if options.token is None or path == "/" or path.startswith(OPEN) or method == "OPTIONS":
            return
        kind, _, given = headers.get(b"authorization", "").partition(" ")
        if kind != "Bearer" or not secrets.compare_digest(given.encode(), options.token.encode()):
            raise Refusal(401, "This server wants a token: send 'Authorization: Bearer TOKEN'.")

    def _counted(self, scope: Any, receive: Any, call: Call) -> Any:
        """Count the bytes of a body, and how long it takes to come.

        Raises:
            Refusal: a body that is too long (413) or too slow (408).
        """
        is_upload = scope["path"] == UPLOADS
        limit = self.options.max_upload if is_upload else self.options.max_body
        length = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if length.isdigit() and int(length) > limit:
            raise _too_long(limit)
        taken, complete = 0, False

        async def counted() -> Any:
            nonlocal taken, complete
            if complete:
                return await receive()
            if is_upload:  # may take long, if only something comes
                call.deadline = time.monotonic() + self.options.timeout
            call.reading = asyncio.current_task()
            try:
                message = await receive()
            except asyncio.CancelledError:
                if time.monotonic() < call.deadline:
                    raise
                raise Refusal(408, "The body of the request came too slowly.") from None
            finally:
                call.reading = None
            taken += len(message.get("body", b""))
            complete = message["type"] != "http.request" or not message.get("more_body")
            if taken > limit:
                raise _too_long(limit)
            return message

        call.receive = counted
        return counted


@lru_cache(1024)
def _place(address: str) -> tuple[str, int]:
    """Read the host and port of an address; no host if it is none."""
    try:
        url = urlsplit(address)
        return url.hostname or "", url.port or 80
    except ValueError:
        return "", 0


def _too_long(limit: int) -> Refusal:
    return Refusal(413, f"The body is longer than {limit:,} bytes; send it as a job to /v1/jobs.", "body_too_long")


async def _body(call: Call, receive: Any) -> bytes:
    """Read the body of a question.

    Raises:
        Refusal: it does not say that it is JSON, which is what keeps forms of other pages away; the client has gone.
    """
    kind = call.headers.get(b"content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refusal(422, "The body is JSON and must say so: send 'Content-Type: application/json'.", "content_type")
    parts, more = [], True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Refusal(499, "The client has gone.")
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)


async def _respond(send: Any, status: int, body: bytes, headers: Mapping[str, str]) -> None:
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    pairs.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})
