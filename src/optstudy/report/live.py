"""A live report that follows a study; read-only, and on this machine only unless another host is given."""

import contextlib
import hashlib
import re
import socket
import threading
from collections.abc import Callable, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from optstudy.errors import UserError, first_line, shown
from optstudy.report.index import CLAIMS, claims, index, slugs
from optstudy.report.page import page
from optstudy.results.figure import Figure

Load = Callable[[], Sequence[Figure]]
INDEX_POLL = 30
"""Seconds between a served index's checks for new runs."""
LOOPBACK = ("127.0.0.1", "::1", "localhost")
NAMES = re.compile(r"(127\.0\.0\.1|\[::1\]|localhost)(:\d+)?", re.IGNORECASE)
"""Values of the Host header that mean loopback; browsers omit port 80."""
HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Site:
    """The current pages of the studies; a page is rebuilt only when its runs have changed."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._lock = threading.Lock()
        self._pages: dict[str, tuple[str, str]] = {}

    def get(self, path: str) -> tuple[str, str] | None:
        """Content type and text at a path; None if nothing is there.

        A single study is at ``/``; several have an index there. ``version`` next to a page changes with its
        runs.
        """
        with self._lock:
            studies = list(self._load())
            if len(studies) == 1:
                places = {"/": studies[0]}
            else:
                places = {f"/{slug}/": study for slug, study in zip(slugs(studies), studies, strict=True)}
                if path == "/":
                    now = "".join(map(version, studies))
                    return "text/html", self._cached(
                        "/", now, lambda: index(studies, "Studies", "/", INDEX_POLL)
                    )
                if path == f"/{CLAIMS}" and (text := claims(studies, "all studies", "/", "/")):
                    return "text/html", text
            folder, _, leaf = path.rpartition("/")
            study = places.get(f"{folder}/")
            if study is None or leaf not in ("", "version"):
                return None
            now = version(study)
            if leaf:
                return "text/plain", now
            home = "/" if len(studies) > 1 else ""
            return "text/html", self._cached(path, now, lambda: page(study, home, live=now))

    def _cached(self, path: str, now: str, make: Callable[[], str]) -> str:
        if path not in self._pages or self._pages[path][0] != now:
            self._pages[path] = (now, make())
        return self._pages[path][1]


def version(study: Figure) -> str:
    """A text that changes when a run of the study ends."""
    ends = sorted(f"{row.id} {row.state} {row.val_loss}" for row in study.rows)
    return hashlib.sha256("\n".join([study.name, str(study.missing), *ends]).encode()).hexdigest()[:16]


def make_server(load: Load, host: str = LOOPBACK[0], port: int = 0) -> ThreadingHTTPServer:
    """A server for the studies' pages, bound but not yet running; port 0 picks a free port.

    On loopback it only answers requests for a loopback host name, so that no web page reaches it under
    another name.
    """
    site = Site(load)
    on_loopback = host in LOOPBACK

    class Server(ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

    class Handler(BaseHTTPRequestHandler):
        server_version = "optstudy"
        sys_version = ""

        def do_GET(self) -> None:
            self._answer(body=True)

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def _answer(self, body: bool) -> None:
            if on_loopback and not NAMES.fullmatch(self.headers.get("Host", "")):
                self.send_error(HTTPStatus.MISDIRECTED_REQUEST)
                return
            try:
                found = site.get(self.path.partition("?")[0])
            except (UserError, OSError) as error:
                self._send(HTTPStatus.SERVICE_UNAVAILABLE, "text/plain", str(error), body)
                return
            if found is None:
                self.send_error(HTTPStatus.NOT_FOUND)
                return
            self._send(HTTPStatus.OK, *found, body)

        def _send(self, status: HTTPStatus, kind: str, text: str, body: bool) -> None:
            content = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            for key, value in HEADERS.items():
                self.send_header(key, value)
            self.end_headers()
            if body:
                with contextlib.suppress(ConnectionError):
                    self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Server((host, port), Handler)


def serve(load: Load, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Serve until Ctrl-C; ``ready`` is called with the URL.

    Args:
        load: reads the studies again; called at each request.
        host: address to listen on; other machines can connect only if it is not loopback.
        port: 0 for a free port.

    Raises:
        UserError: the port is in use, or the address is not this machine's.
    """
    try:
        made = make_server(load, host, port)
    except (OSError, OverflowError, TypeError, UnicodeError) as error:  # unusual hosts raise other errors
        why = getattr(error, "strerror", None) or first_line(error)
        raise UserError(f"cannot serve on {host}, port {shown(port)}: {why}; choose another --port") from None
    with made as server:
        address, bound = server.server_address[:2]
        ready(f"http://[{address!s}]:{bound}/" if ":" in host else f"http://{address!s}:{bound}/")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return
