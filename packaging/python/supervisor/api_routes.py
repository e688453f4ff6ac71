"""The supervisor's API inside a Flask app.

    from supervisor.api_routes import register_supervisor_routes
    register_supervisor_routes(app)

    browser -> app's own authentication -> this blueprint -> Unix socket -> process-supervisor
                                           |
                                           '-> refuses: other sites' orders, odd paths, large bodies

``/api/supervisor/*`` is forwarded as it is: method, path, query, body; status, headers and body of the answer, also
of answers that never end (server-sent events). No cookie, token or other header of the app reaches the supervisor, but
what `_FORWARDED` names. A supervisor that cannot be asked is a problem document (RFC 9457) of the shape that its own
have.

The supervisor sees the app's user behind every order, not the app's users: who may do what is for the app to decide.
Its ``before_request`` hooks run first, as for any route; where an app protects its views one by one, give its decorator:
``register_supervisor_routes(app, authorize=login_required)``.

A stream holds a thread of the WSGI server for as long as it is watched: serve the app with enough of them.

The distribution is called ``process-supervisor-flask``. The unrelated distribution ``supervisor`` (supervisord) owns a
package of the same name; this module has no ``__init__.py`` beside it, so both can be in one site-packages and each can
be removed without the other. In different folders of ``sys.path`` supervisord's package hides this module.
"""

from __future__ import annotations

import grp
import http.client
import json
import logging
import os
import pwd
import re
import socket
from typing import Callable, Iterator, NoReturn, Optional
from urllib.parse import quote, urlsplit

from flask import Blueprint, Flask, Response, current_app, request
from werkzeug.exceptions import RequestEntityTooLarge

__all__ = ["register_supervisor_routes"]

_log = logging.getLogger(__name__)

_API = "/api/supervisor/"
_SYSTEM_SOCKET = "/run/process-supervisor/supervisor.sock"

# Largest request body, in bytes: what the supervisor takes.
_BODY_LIMIT = 64 * 1024
# Seconds to the first byte of an answer, and between two. A read is answered at once.
_READ_TIME = 30
# An order is answered when the service has done it. The supervisor bounds that itself, to a day at most.
_ORDER_TIME = 24 * 3600 + 60
# The supervisor sends a comment into a quiet stream every 15 s. A client that left is noticed at the second
# one that cannot be written.
_STREAM_TIME = 60
# Bytes of an answer that are handed on at once.
_CHUNK = 64 * 1024

# The only headers of a request that the supervisor gets. Host, Content-Length and Connection are made anew.
_FORWARDED = ("Accept", "Content-Type", "If-Modified-Since", "If-None-Match", "Last-Event-ID")
# Headers of an answer that are about the connection to the supervisor (RFC 9110, 7.6.1), or the app's own affair.
_DROPPED = {
    "connection",
    "date",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "server",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
}

# A part of a path: a word of the API, an id, a number. So neither `..` nor anything that has to be encoded.
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
# What stays as it was sent in a query: printable ASCII. A `#` would end it.
_QUERY = "".join(map(chr, range(0x21, 0x7F))).replace("#", "")

View = Callable[..., Response]


def register_supervisor_routes(
    app: Flask,
    socket_path: Optional[str] = None,
    url_prefix: str = "/api/supervisor",
    authorize: Optional[Callable[[View], View]] = None,
) -> Blueprint:
    """Adds the supervisor's API to `app` and returns the blueprint.

    `socket_path`: by default `PROCESS_SUPERVISOR_SOCKET` from the environment, else the socket of the user's own
    supervisor where there is one (never for root), else the system's. Looked up at each request.
    `authorize`: a decorator for the view, such as Flask-Login's `login_required`.
    """

    def forward(path: str) -> Response:
        try:
            _refuse_other_sites()
            target = _target(path)
            headers, body = _headers(), _body()
            return _ask(socket_path or _default_socket(), target, headers, body)
        except _Problem as problem:
            return problem.response()

    view = authorize(forward) if authorize else forward
    # The name tells two supervisors in one app apart.
    blueprint = Blueprint("process_supervisor" + re.sub(r"\W", "_", url_prefix), __name__)
    methods = ["GET", "POST", "PUT", "PATCH", "DELETE"]
    blueprint.add_url_rule("/<path:path>", "forward", view, methods=methods)
    if authorize is None:
        _warn_once_if_open(blueprint)
    app.register_blueprint(blueprint, url_prefix=url_prefix)
    return blueprint


def _warn_once_if_open(blueprint: Blueprint) -> None:
    """At the first request: hooks may be added after the routes."""
    told = False

    def check() -> None:
        nonlocal told
        if not told and not current_app.before_request_funcs.get(None):
            _log.warning(
                "nothing in this app asks who may use %s: whoever reaches the app can stop services. Add a "
                "before_request hook that asks for a login, or give register_supervisor_routes an `authorize` decorator",
                request.path,
            )
        told = True

    blueprint.before_request(check)


# --- What comes in ---


def _refuse_other_sites() -> None:
    """A browser sends the app's cookie also with what another site makes it post.

    What it says about where a request comes from is checked as Go's `http.CrossOriginProtection` does: Sec-Fetch-Site,
    else the host in Origin. Who sends neither is no browser of the last years, and has no cookie that it did not mean to
    send.
    """
    if request.method in ("GET", "HEAD"):
        return
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if site is not None:
        foreign = site not in ("same-origin", "none")
    else:
        foreign = origin is not None and not _is_own(origin)
    if foreign:
        raise _Problem(
            403,
            "cross_site",
            "Another site asked",
            f"the browser says that this order comes from another site ({origin or site}); this app is "
            f"{request.host}. If they are the same, let the proxy in front of the app pass the Host header on",
        )


def _is_own(origin: str) -> bool:
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    # A proxy may speak https where the app sees http; the default port is never in Origin.
    default = {"http": ":80", "https": ":443"}.get(parts.scheme, "")
    host = request.host.lower()
    if default and host.endswith(default):
        host = host[: -len(default)]
    return parts.netloc.lower() == host


def _target(path: str) -> str:
    """Path and query for the supervisor. `path` is decoded already, so it is checked and nothing is decoded twice."""
    raw = request.environ.get("REQUEST_URI") or request.environ.get("RAW_URI") or ""
    parts = path.split("/")
    # An encoded slash is no separator, but looks like one after decoding.
    if "%2f" in raw.partition("?")[0].lower() or not all(_PART.fullmatch(part) for part in parts):
        raise _bad_request(
            f"the path: {ascii(path[:200])} has a part that the API cannot have; parts are letters, digits, '_', '.' "
            "and '-', and begin with a letter or digit"
        )
    if parts[0] == "token":
        # A stolen session must not lock out those who have a token.
        raise _Problem(
            403,
            "socket_only",
            "Tokens are rotated over the socket",
            "run `supervisorctl token rotate` on the host of the supervisor",
        )
    query = quote(request.query_string, safe=_QUERY)
    return _API + path + ("?" + query if query else "")


def _headers() -> dict[str, str]:
    headers = {name: request.headers[name] for name in _FORWARDED if name in request.headers}
    for name, value in headers.items():
        # No WSGI server should let one in.
        if re.search(r"[\x00-\x08\x0a-\x1f\x7f]", value):
            raise _bad_request(f"the header {name} has a control character")
    headers["Connection"] = "close"
    return headers


def _body() -> Optional[bytes]:
    """All of it, before the supervisor is asked: a slow client takes no connection there, half a body is no order."""
    length = request.content_length
    try:
        if length is not None and length > _BODY_LIMIT:
            raise RequestEntityTooLarge
        # A hook of the app may have read it; `get_data` has it still. Without a length it may be without end.
        body = request.get_data() if length is not None else _read_bounded()
    except RequestEntityTooLarge:
        detail = f"the body may have at most {_BODY_LIMIT} bytes"
        raise _Problem(413, "too_large", "The body is too large", detail) from None
    return body or None


def _read_bounded() -> bytes:
    body = b""
    while len(body) <= _BODY_LIMIT:
        part = request.stream.read(_BODY_LIMIT + 1 - len(body))
        if not part:
            return body
        body += part
    raise RequestEntityTooLarge


# --- The supervisor ---


class _Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket; one per request."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def _default_socket() -> str:
    named = os.environ.get("PROCESS_SUPERVISOR_SOCKET")
    if named:
        return named
    uid = os.geteuid()
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{uid}"
    own = os.path.join(runtime, "process-supervisor", "supervisor.sock")
    return own if uid != 0 and os.path.exists(own) else _SYSTEM_SOCKET


def _ask(path: str, target: str, headers: dict[str, str], body: Optional[bytes]) -> Response:
    reads = request.method in ("GET", "HEAD")
    connection = _Connection(path, _READ_TIME if reads else _ORDER_TIME)
    try:
        try:
            connection.connect()
        except OSError as error:
            _unreachable(path, error)
        sock = connection.sock
        try:
            connection.request(request.method, target, body, headers)
            answer = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            _no_answer(path, error, reads)
    except BaseException:
        connection.close()
        raise
    is_stream = answer.getheader("Content-Type", "").startswith("text/event-stream")
    # Reading goes on over the same socket, whatever http.client thinks of the connection.
    sock.settimeout(_STREAM_TIME if is_stream else _READ_TIME)
    response = Response(_Answer(connection, answer, is_stream), status=answer.status)
    response.headers.clear()
    named = {name.strip().lower() for name in answer.getheader("Connection", "").split(",")}
    response.headers.extend(
        (name, value) for name, value in answer.getheaders() if name.lower() not in _DROPPED | named
    )
    return response


class _Answer:
    """The body of an answer, handed on as it comes. The WSGI server closes it when the client is gone."""

    def __init__(self, connection: _Connection, answer: http.client.HTTPResponse, is_stream: bool) -> None:
        self.connection = connection
        self.answer = answer
        self.is_stream = is_stream

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            part = self.answer.read1(_CHUNK)
            # What is left of the stated length; `None` where the last chunk or the connection's end tells.
            if not part and self.answer.length:
                raise http.client.IncompleteRead(b"", self.answer.length)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            if self.is_stream:
                # The supervisor ended, and the browser connects again by itself.
                raise StopIteration from None
            _log.warning("an answer of the supervisor ended early: %r", error)
            # The client must not take a part for the whole.
            raise
        if not part:
            self.close()
            raise StopIteration
        return part

    def close(self) -> None:
        self.answer.close()
        self.connection.close()


# --- What goes wrong ---


class _Problem(Exception):
    """A problem document, as the supervisor's own (`src/http/error.rs`)."""

    def __init__(self, status: int, kind: str, title: str, detail: str) -> None:
        super().__init__(detail)
        self.document = {
            "type": f"urn:process-supervisor:problem:{kind}",
            "title": title,
            "status": status,
            "detail": detail,
        }

    def response(self) -> Response:
        status = self.document["status"]
        response = Response(json.dumps(self.document), status, content_type="application/problem+json")
        response.headers["Cache-Control"] = "no-store"
        if status == 503:
            response.headers["Retry-After"] = "5"
        return response


def _bad_request(detail: str) -> _Problem:
    return _Problem(400, "bad_request", "The request cannot be understood", detail)


def _unreachable(path: str, error: OSError) -> NoReturn:
    why = error.strerror or str(error)
    if isinstance(error, PermissionError):
        raise _Problem(502, "not_permitted", "The supervisor may not be asked", _denied(path)) from None
    if isinstance(error, (BlockingIOError, socket.timeout)):
        detail = f"too many requests wait for the supervisor at {path}; ask again in a few seconds"
        raise _Problem(503, "busy", "The supervisor is busy", detail) from None
    raise _Problem(
        503,
        "unreachable",
        "The supervisor does not run",
        f"no supervisor answers at {path} ({why}). Start it: `systemctl start process-supervisor`, for one of your own "
        "`systemctl --user start process-supervisor`; if its socket is elsewhere, set PROCESS_SUPERVISOR_SOCKET",
    ) from None


def _denied(path: str) -> str:
    uid = os.geteuid()
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        user = str(uid)
    try:
        gid = os.stat(path).st_gid
        group = grp.getgrgid(gid).gr_name
    except (OSError, KeyError):
        # Where not even the folder may be looked into, the group is the one that the package makes.
        gid, group = -1, "process-supervisor"
    if gid == 0:
        return (
            f"this app runs as {user}, and {path} is for root alone. Make the group whose members may use it (`sudo "
            "groupadd --system process-supervisor`), restart the supervisor, then let the app's user join: "
            f"`sudo usermod -aG process-supervisor {user}`, and restart the app"
        )
    return (
        f"this app runs as {user}, and {path} is for root and the group {group}. Let the app's user join: "
        f"`sudo usermod -aG {group} {user}`, and restart the app"
    )


def _no_answer(path: str, error: Exception, reads: bool) -> NoReturn:
    then = "ask again" if reads else "whether it was done is not known: look at the status before you repeat it"
    if isinstance(error, socket.timeout):
        detail = f"the supervisor at {path} took the request and did not answer in time; {then}"
        raise _Problem(504, "no_answer", "The supervisor does not answer", detail) from None
    why = str(error) or type(error).__name__
    detail = f"the supervisor at {path} was asked, and the connection ended without an answer ({why}); {then}"
    raise _Problem(502, "gone", "The supervisor went away", detail) from None
