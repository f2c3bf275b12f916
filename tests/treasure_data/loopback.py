"""A Treasure Data on 127.0.0.1: REST, Trino and CDP over one state, with faults on demand.

The clients under test are the real ones, unpatched: they are told where the server is by
the variables that they read anyway (`environment`).
"""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from treasure_data.store import Store

MASTER_KEY = "1/0123456789abcdef-master"
WRITE_ONLY_KEY = "1/0123456789abcdef-writes"


class Answer(NamedTuple):
    status: int
    body: Any = None  # bytes, or something that becomes JSON


@dataclass
class Request:
    method: str
    path: str
    arguments: tuple[str, ...]
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    base: str

    def json(self) -> Any:
        return json.loads(self.body) if self.body else None

    def form(self) -> dict[str, str]:
        """Read multipart, which td-client sends, or urlencoded fields."""
        kind = self.headers.get("content-type", "")
        if not kind.startswith("multipart/form-data"):
            return dict(parse_qsl(self.body.decode()))
        boundary = kind.partition("boundary=")[2].encode()
        fields = {}
        for part in self.body.split(b"--" + boundary)[1:-1]:
            head, _, value = part.strip(b"\r\n").partition(b"\r\n\r\n")
            fields[re.search(rb'name="([^"]*)"', head)[1].decode()] = value.decode()
        return fields


Handler = Callable[["Loopback", Request], Answer]


@dataclass(frozen=True)
class Route:
    name: str  # "POST /v3/table/swap"
    method: str
    pattern: re.Pattern[str]
    handler: Handler


ROUTES: list[Route] = []


def route(method: str, template: str) -> Callable[[Handler], Handler]:
    """Register a handler; `*` in the template is one argument."""

    def register(handler: Handler) -> Handler:
        name = f"{method} {template}"
        pattern = re.compile(re.escape(template).replace(r"\*", "([^/]+)"))
        ROUTES.append(Route(name, method, pattern, handler))
        return handler

    return register


@dataclass
class Fault:
    """What goes wrong at a route, the next `times` times that it is called.

    kind: ``drop`` (closed before the work is done), ``lose`` (closed after it is done),
    ``slow`` (no answer for `seconds`), ``call`` (run `action`, then answer as usual), or a
    status that is answered without doing anything.
    """

    route: str
    kind: str | int
    times: int = 1_000_000
    seconds: float = 3.0
    action: Callable[[], None] = lambda: None
    after: bool = False  # of "call": run the action when the work is done
    body: Any = field(default_factory=lambda: {"error": "injected"})
    skip: int = 0  # calls that pass before it begins


class Loopback:
    """The server and its state."""

    def __init__(self) -> None:
        self.store = Store()
        self.keys = {MASTER_KEY: "master", WRITE_ONLY_KEY: "write"}
        self.faults: list[Fault] = []
        self.log: list[tuple[str, Request]] = []
        self.lock = threading.RLock()
        self.page_rows = 5_000
        self.v5 = True
        self.folder_in_list = True  # whether v5 tells folders when it lists master segments
        self.job_status = "success"  # of the next bulk imports
        self.lost_records = 0  # that the next bulk imports lose
        self.execution_status = "success"  # of the next runs of a master segment
        self.mangle: Callable[[dict[str, Any]], None] = lambda _config: None
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _make_handler(self))
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """The variables that lead the clients here."""
        return {
            "TD_API_KEY": MASTER_KEY,
            "TD_API_SERVER": self.base,
            "TD_PRESTO_API": self.base,
            "TD_CDP_API": self.base,
            "HTTP_PROXY": "",
        }

    def __enter__(self) -> Loopback:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self.store.close()

    def calls(self, pattern: str = "") -> list[str]:
        """Names of the routes that were called, in order."""
        return [name for name, _request in self.log if re.search(pattern, name)]

    def bodies(self, name: str) -> list[Any]:
        return [request.json() for called, request in self.log if called == name]

    def _fault(self, name: str) -> Fault | None:
        for fault in self.faults:
            if fault.route == name and fault.times > 0:
                if fault.skip > 0:
                    fault.skip -= 1
                    continue
                fault.times -= 1
                return fault
        return None

    def answer(self, request: Request) -> Answer | None:
        """Answer a request; None hangs up."""
        found = find(request)
        if found is None:
            return Answer(404, {"error": f"no route {request.method} {request.path}"})
        with self.lock:
            self.log.append((found.name, request))
            fault = self._fault(found.name)
        if fault is None:
            return self._work(found, request)
        if isinstance(fault.kind, int):
            return Answer(fault.kind, fault.body)
        if fault.kind == "drop":
            return None
        if fault.kind == "slow":
            time.sleep(fault.seconds)
            return None
        if fault.kind == "lose":
            self._work(found, request)
            return None
        if not fault.after:
            fault.action()
        answer = self._work(found, request)
        if fault.after:
            fault.action()
        return answer

    def _work(self, found: Route, request: Request) -> Answer:
        with self.lock:
            refused = self._refusal(request)
            return refused or found.handler(self, request)

    def _refusal(self, request: Request) -> Answer | None:
        if request.path.startswith("/v1/"):
            # a statement is authorised once; its pages carry secrets of their own
            key = request.headers.get("x-trino-user", MASTER_KEY)
        else:
            key = request.headers.get("authorization", "").removeprefix("TD1 ")
        right = self.keys.get(key)
        if right is None:
            return Answer(401, {"error": "Invalid apikey", "code": 401, "message": "Unauthorized"})
        writes = ("/v3/bulk_import", "/v3/database/list", "/v3/table/list")
        if right == "write" and not request.path.startswith(writes):
            return Answer(403, {"error": "Forbidden", "errors": "Forbidden"})
        return None


def find(request: Request) -> Route | None:
    for candidate in ROUTES:
        matched = candidate.pattern.fullmatch(request.path)
        if candidate.method == request.method and matched:
            request.arguments = matched.groups()
            return candidate
    return None


def _make_handler(loopback: Loopback) -> type[BaseHTTPRequestHandler]:
    class Connection(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 1 << 16  # one write for an answer: two would wait for each other's ACK
        disable_nagle_algorithm = True

        def do(self) -> None:
            parts = urlsplit(self.path)
            request = Request(
                method=self.command,
                path=re.sub("//+", "/", parts.path),
                arguments=(),
                query=dict(parse_qsl(parts.query)),
                headers={name.lower(): value for name, value in self.headers.items()},
                body=self.rfile.read(int(self.headers.get("content-length") or 0)),
                base=loopback.base,
            )
            answer = loopback.answer(request)
            if answer is None:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            self.reply(answer)

        do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do

        def reply(self, answer: Answer) -> None:
            is_json = not isinstance(answer.body, bytes)
            body = json.dumps(answer.body).encode() if is_json else answer.body
            try:
                self.send_response(answer.status)
                kind = "application/json" if is_json else "application/octet-stream"
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            except OSError:
                self.close_connection = True  # the client did not wait

        def log_message(self, *_arguments: object) -> None:
            pass

    return Connection


@contextmanager
def loopback_treasure_data() -> Iterator[Loopback]:
    """Run a server for the time of a block."""
    from treasure_data import cdp_routes, rest_routes, trino_routes  # noqa: F401  register

    with Loopback() as server:
        yield server
