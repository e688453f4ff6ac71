"""Both ends of the blueprint: a supervisor that says what a test wants, and an app served over TCP."""

from __future__ import annotations

import http.client
import os
import socket
import socketserver
import tempfile
import threading
import time
import unittest
from typing import Callable, Optional, Union

from flask import Flask
from werkzeug.serving import WSGIRequestHandler, make_server

from supervisor.api_routes import register_supervisor_routes

# Seconds; longer than anything here takes on a busy machine.
DEADLINE = 20

Answer = Union[bytes, Callable[[socket.socket], None]]


def answer(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


class Asked:
    """A request as it arrived."""

    def __init__(self, head: bytes, body: bytes) -> None:
        first, *lines = head.decode("latin-1").split("\r\n")
        self.line = first
        self.method, self.target, _ = first.split(" ")
        self.headers = [tuple(line.split(": ", 1)) for line in lines]
        self.body = body

    def header(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]


class Stub(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Answers every connection with `answer`, and keeps what was asked."""

    daemon_threads = True

    def __init__(self, path: str) -> None:
        super().__init__(path, _Handler)
        self.path = path
        self.asked: list[Asked] = []
        self.answer: Answer = answer(b"{}", "200 OK", "Content-Type: application/json")
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        self.shutdown()
        self.server_close()


class _Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = self.rfile.readline()
            if not line:
                return
            head += line
        asked = Asked(head[:-4], b"")
        length = asked.header("Content-Length")
        asked.body = self.rfile.read(int(length[0])) if length else b""
        self.server.asked.append(asked)
        reply = self.server.answer
        if callable(reply):
            reply(self.connection)
        else:
            self.connection.sendall(reply)


class Quiet(WSGIRequestHandler):
    """HTTP/1.1, as servers in front of real apps speak."""

    protocol_version = "HTTP/1.1"

    def log(self, *_: object) -> None:
        pass


class Case(unittest.TestCase):
    """A stub, and an app with the two lines in front of it."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.stub = Stub(os.path.join(folder.name, "s.sock"))
        self.addCleanup(self.stub.stop)
        self.app = self.make_app()

    def make_app(self, path: Optional[str] = None, **options: object) -> Flask:
        app = Flask("dashboard")
        # Somebody has to ask for a login; these tests have their own.
        app.before_request(lambda: None)
        register_supervisor_routes(app, socket_path=path or self.stub.path, **options)
        return app

    def ask(self, path: str, method: str = "GET", **options: object):
        return self.app.test_client().open("/api/supervisor/" + path, method=method, buffered=True, **options)

    def serve(self, app: Optional[Flask] = None) -> int:
        """Serves over TCP and gives the port."""
        server = make_server("127.0.0.1", 0, app or self.app, threaded=True, request_handler=Quiet)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        return server.server_port

    def raw(self, port: int, request: bytes) -> socket.socket:
        client = socket.create_connection(("127.0.0.1", port), DEADLINE)
        self.addCleanup(client.close)
        client.sendall(request)
        return client

    def status_of(self, port: int, request: bytes) -> int:
        reply = http.client.HTTPResponse(self.raw(port, request))
        reply.begin()
        reply.close()
        return reply.status

    def assert_problem(self, reply, status: int, kind: str, *words: str) -> None:
        self.assertEqual(reply.status_code, status, reply.data)
        self.assertEqual(reply.content_type, "application/problem+json")
        self.assertEqual(set(reply.json), {"type", "title", "status", "detail"})
        self.assertEqual(reply.json["type"], "urn:process-supervisor:problem:" + kind)
        self.assertEqual(reply.json["status"], status)
        for word in words:
            self.assertIn(word, reply.json["detail"])

    def wait(self, what: str, check: Callable[[], bool]) -> None:
        deadline = time.monotonic() + DEADLINE
        while not check():
            self.assertLess(time.monotonic(), deadline, what)
            time.sleep(0.01)
