"""The falcon application: the gate before every route, health and status, and errors as problems.

The sessions are sessions.py's. The path of ``/api/health/live`` is kept lean: it is asked most often, and
while nothing else works.
"""

from __future__ import annotations

import logging
from typing import Any

import falcon

from netclawd.adapters.http import openai_error, problem, sse
from netclawd.adapters.http.channel import ENV_TARGET, ENV_UNIX
from netclawd.adapters.http.completions import add_completion_routes, show
from netclawd.adapters.http.forwarded import ENV_FORWARDED_HOST, without_forwarded
from netclawd.adapters.http.options import HookOptions, HttpOptions
from netclawd.adapters.http.origin import Gatekeeper
from netclawd.adapters.http.pump import Pump
from netclawd.adapters.http.query import whole_number
from netclawd.adapters.http.raw import phrase_of
from netclawd.adapters.http.reminders import add_reminder_routes
from netclawd.adapters.http.sessions import add_session_routes
from netclawd.errors import BadRequestError, DrainingError, NetclawError
from netclawd.ports import Exposition, Service

logger = logging.getLogger("netclawd.http.app")

_LIVE = b'{"status":"live"}'


def create_app(
    service: Service,
    options: HttpOptions,
    pump: Pump,
    expose: Exposition,
) -> Any:
    """Build the WSGI application; ``pump`` takes what does not end soon."""
    gate = Gatekeeper(options.addresses, options.allowed_hosts, options.trusted_proxies)
    app: Any = falcon.App(middleware=[Gate(gate)])
    app.add_route("/api/health/live", Live())
    app.add_route("/api/health/ready", Ready(service))
    app.add_route("/api/status", Status(service))
    app.add_route("/api/restarts", Restarts(service))
    app.add_route("/metrics", Metrics(expose))
    app.add_route("/openapi.json", OpenApi())
    app.add_route("/api/hooks/{name}", Hooks(service, options.hooks))
    add_session_routes(app, service, pump.admit)
    add_reminder_routes(app, service)
    add_completion_routes(app, service, pump)
    problems = Problems(service)
    app.add_error_handler(Exception, problems.unexpected)
    app.add_error_handler(falcon.HTTPError, problems.http)
    app.add_error_handler(NetclawError, problems.known)
    return without_forwarded(app, gate)


class Gate:
    """Refuses what a web page in the operator's browser might send."""

    def __init__(self, gate: Gatekeeper) -> None:
        self._gate = gate

    def process_request(self, req: Any, resp: Any) -> None:
        env = req.env
        if req.method not in falcon.COMBINED_METHODS:
            raise problem.UnknownMethodError(
                "Nothing here knows this method.", problem.remedy_of(501)
            )
        host = env.get(ENV_FORWARDED_HOST, env.get("HTTP_HOST"))
        if ENV_UNIX not in env:
            self._judge_host(env, host)
        origin = env.get("HTTP_ORIGIN")
        if origin is not None and not self._gate.origin_acceptable(origin, host):
            raise problem.ForbiddenOriginError(
                "The request comes from a web page of another site.",
                "Use a client that isn't a foreign web page, or add its host to daemon.allowed_hosts.",
            )
        resp.set_header("Cache-Control", "no-store")

    def _judge_host(self, env: dict[str, Any], host: str | None) -> None:
        if host is None:
            # No browser omits it, so none can be made to; RFC 9112 demands it from HTTP/1.1 on.
            if env["SERVER_PROTOCOL"] == "HTTP/1.1":
                raise BadRequestError("The request has no Host header.", "Send one.")
            return
        target = env.get(ENV_TARGET)
        acceptable = self._gate.host_acceptable
        if not acceptable(host) or (target is not None and not acceptable(target)):
            raise problem.ForbiddenHostError(
                "The Host header names a host that this daemon does not answer for.",
                "Use a configured address or localhost, or add the name to daemon.allowed_hosts.",
            )


class Live:
    """200 while the process serves."""

    def on_get(self, _req: Any, resp: Any) -> None:
        resp.data = _LIVE

    on_head = on_get


class Ready:
    """200 in the phases in which new turns run."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def on_get(self, req: Any, resp: Any) -> None:
        ready, facts = self._service.ready()
        if ready:
            resp.data = sse.encode(dict(facts))
            return
        resp.status = falcon.HTTP_503
        resp.content_type = problem.MEDIA_TYPE
        resp.set_header("Retry-After", str(self._service.retry_after_s()))
        resp.data = problem.body(
            503,
            "not-ready",
            "The daemon serves, but new turns do not run now.",
            "Ask again after Retry-After seconds.",
            req.path,
            facts,
        )

    on_head = on_get


class Status:
    def __init__(self, service: Service) -> None:
        self._service = service

    def on_get(self, _req: Any, resp: Any) -> None:
        resp.data = sse.encode(dict(self._service.status()))

    on_head = on_get


class Restarts:
    """The restart journal, newest first."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def on_get(self, req: Any, resp: Any) -> None:
        limit = whole_number(req, "limit", default=20, lowest=1, highest=1000)
        records = self._service.restarts(limit)
        resp.data = sse.encode({"restarts": [dict(record) for record in records]})


class Metrics:
    """What Prometheus scrapes."""

    def __init__(self, expose: Exposition) -> None:
        self._expose = expose

    def on_get(self, req: Any, resp: Any) -> None:
        resp.content_type, resp.data = self._expose(req.get_header("Accept"))

    on_head = on_get


class Hooks:
    """Webhooks; what judges them is not needed to serve."""

    def __init__(self, service: Service, options: HookOptions) -> None:
        self._service = service
        self._options = options

    def on_post(self, req: Any, resp: Any, name: str) -> None:
        from netclawd.adapters.http.hooks import take_delivery

        take_delivery(self._service, self._options, req, resp, name)


class OpenApi:
    """The description of this API, made when it is first asked for."""

    def __init__(self) -> None:
        self._document: bytes | None = None

    def on_get(self, _req: Any, resp: Any) -> None:
        if self._document is None:
            # Not on the path of a restart.
            from netclawd.adapters.http.openapi import document

            self._document = sse.encode(document())
        resp.data = self._document


class Problems:
    """Turns every error into a problem."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def known(self, req: Any, resp: Any, error: NetclawError, _params: Any) -> None:
        """Answer with the error's own slug, words and status."""
        if openai_error.concerns(req.path):
            self._show(resp, error)
            return
        if isinstance(error, DrainingError):
            resp.set_header("Retry-After", str(error.retry_after_s))
        elif error.status in (429, 503):
            resp.set_header("Retry-After", str(self._service.retry_after_s()))
        if error.status >= 500 and error.status not in (501, 503):
            logger.error("request failed: %s: %s", error.slug, error.what)
        self._answer(req, resp, error.status, error.slug, error.what, error.remedy)

    def _show(self, resp: Any, error: NetclawError) -> None:
        failure = openai_error.failure_of(error)
        if failure.status == 500:
            logger.error("request failed: %s: %s", error.slug, error.what)
        retry_after_s = self._service.retry_after_s()
        if isinstance(error, DrainingError):
            retry_after_s = max(retry_after_s, error.retry_after_s)
        show(resp, failure, retry_after_s)

    def http(self, req: Any, resp: Any, error: Any, _params: Any) -> None:
        """Answer what falcon found: no such route, method, media type."""
        status = int(str(error.status).split(" ", 1)[0])
        if error.headers:
            resp.set_headers(error.headers)
        detail = error.description or f"{req.method} {req.path}: {phrase_of(status)}."
        slug = problem.slug_of(status)
        self._answer(req, resp, status, slug, detail, problem.remedy_of(status))

    def unexpected(self, req: Any, resp: Any, _error: Exception, _params: Any) -> None:
        """Answer a defect of ours without saying more than that."""
        logger.exception("unexpected error in %s %s", req.method, req.path)
        remedy = "Look for this request in the daemon's log, and report it."
        self._answer(req, resp, 500, "internal-error", "The daemon has a defect.", remedy)

    def _answer(
        self, req: Any, resp: Any, status: int, slug: str, detail: str, remedy: str
    ) -> None:
        resp.set_header("Cache-Control", "no-store")
        if openai_error.concerns(req.path):
            failure = openai_error.Failure.of(status, slug, detail, remedy)
            show(resp, failure, self._service.retry_after_s())
            return
        resp.status = f"{status} {phrase_of(status)}"
        resp.content_type = problem.MEDIA_TYPE
        resp.data = problem.body(status, slug, detail, remedy, req.path)
