"""What comes back: answers, streams, and what goes wrong."""

import http.client
import json
import os
import re
import socket
import threading
from importlib import metadata
from pathlib import Path
from unittest import TestCase, mock

from stub import DEADLINE, Case, answer

SSE = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\nX-Accel-Buffering: no\r\n\r\n"
)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


class Answers(Case):
    def test_status_headers_and_body_come_back(self):
        for status in ["200 OK", "202 Accepted", "404 Not Found", "409 Conflict", "422 X", "503 Service Unavailable"]:
            self.stub.answer = answer(
                b'{"a": "\xc3\xa9"}', status, "Content-Type: application/problem+json", "Allow: GET"
            )
            reply = self.ask("services/web")
            self.assertEqual(reply.status_code, int(status[:3]))
            self.assertEqual(reply.data, b'{"a": "\xc3\xa9"}')
            self.assertEqual(reply.headers["Content-Type"], "application/problem+json")
            self.assertEqual(reply.headers["Allow"], "GET")
            self.assertEqual(reply.headers["Content-Length"], "11")

    def test_headers_of_the_connection_and_cookies_stay_behind(self):
        own = [
            "Connection: close, X-Hop",
            "X-Hop: 1",
            "Keep-Alive: timeout=5",
            "Set-Cookie: session=evil",
            "Server: s",
            "Upgrade: h2c",
            "ETag: x",
        ]
        self.stub.answer = answer(b"", "200 OK", *own)
        self.assertEqual(sorted(name for name, _ in self.ask("status").headers), ["Content-Length", "ETag"])

    def test_a_redirect_is_not_followed(self):
        self.stub.answer = answer(b"", "302 Found", "Location: http://127.0.0.1:1/")
        reply = self.ask("status")
        self.assertEqual((reply.status_code, reply.headers["Location"]), (302, "http://127.0.0.1:1/"))
        self.assertEqual(len(self.stub.asked), 1)

    def test_head_has_headers_alone(self):
        self.stub.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n"
        reply = self.ask("status", "HEAD")
        self.assertEqual((reply.status_code, reply.headers["Content-Length"], reply.data), (200, "500", b""))

    def test_a_large_answer_comes_whole_whatever_the_framing(self):
        body = os.urandom(3 * 1024 * 1024)
        port = self.serve()
        head = b"HTTP/1.1 200 OK\r\n"
        for framed in [
            answer(body),
            head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk(body) + b"0\r\n\r\n",
            head + b"Connection: close\r\n\r\n" + body,
        ]:
            self.stub.answer = framed
            client = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
            client.request("GET", "/api/supervisor/status")
            self.assertEqual(client.getresponse().read(), body)
            client.close()

    def test_an_answer_with_a_length_does_not_wait_for_the_connection_to_end(self):
        gone = threading.Event()
        self.addCleanup(gone.set)

        def keep_open(connection):
            connection.sendall(answer(b"{}"))
            gone.wait(DEADLINE)

        self.stub.answer = keep_open
        with mock.patch("supervisor.api_routes._READ_TIME", 5):
            self.assertEqual(self.ask("status").data, b"{}")

    def test_part_of_an_answer_is_not_taken_for_the_whole(self):
        head = b"HTTP/1.1 200 OK\r\n"
        for cut in [head + b"Content-Length: 9\r\n\r\n{", head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk(b"{")]:
            self.stub.answer = cut
            # The WSGI server breaks the connection off.
            with self.assertLogs("supervisor.api_routes", "WARNING"), self.assertRaises(http.client.IncompleteRead):
                self.ask("status")


class Streams(Case):
    def setUp(self):
        super().setUp()
        self.port = self.serve()
        self.go_on = threading.Semaphore(0)
        self.ended = threading.Event()

    def stream(self, connection):
        """A message each time the test says so, until the other side is gone."""
        connection.sendall(SSE)
        number = 0
        while self.go_on.acquire(timeout=DEADLINE):
            number += 1
            try:
                connection.sendall(chunk(b"id: %d\ndata: {}\n\n" % number))
            except OSError:
                self.ended.set()
                return

    def open(self):
        request = b"GET /api/supervisor/stream HTTP/1.1\r\nHost: x\r\nLast-Event-ID: 7\r\n\r\n"
        client = self.raw(self.port, request)
        reply = http.client.HTTPResponse(client)
        self.addCleanup(reply.close)
        return client, reply

    def test_each_message_comes_when_it_is_sent(self):
        self.stub.answer = self.stream
        _, reply = self.open()
        self.go_on.release()
        reply.begin()
        self.assertEqual(reply.getheader("Content-Type"), "text/event-stream")
        self.assertEqual(reply.getheader("X-Accel-Buffering"), "no")
        self.assertEqual(self.stub.asked[0].header("Last-Event-ID"), ["7"])
        # The next is sent only after this one was read, so nothing in between waits for more.
        for number in range(1, 4):
            self.assertEqual(reply.readline(), b"id: %d\n" % number)
            self.assertEqual(reply.readline() + reply.readline(), b"data: {}\n\n")
            self.go_on.release()

    def test_the_supervisor_is_left_when_the_client_is_gone(self):
        self.stub.answer = self.stream
        client, reply = self.open()
        self.go_on.release()
        reply.begin()
        reply.readline()
        reply.close()
        client.close()

        def left():
            self.go_on.release()
            return self.ended.wait(0.02)

        self.wait("the connection to the supervisor is closed", left)

    def test_a_stream_ends_with_the_supervisor_or_its_silence(self):
        self.stub.answer = SSE + chunk(b": hello\n\n")
        _, reply = self.open()
        reply.begin()
        self.assertEqual(reply.read(), b": hello\n\n")
        self.stub.answer = self.stream
        with mock.patch("supervisor.api_routes._STREAM_TIME", 0.2):
            _, reply = self.open()
            reply.begin()
            self.assertEqual(reply.read(), b"")

    def test_a_quiet_stream_outlives_the_time_of_a_read(self):
        self.stub.answer = self.stream
        with mock.patch("supervisor.api_routes._READ_TIME", 0.2):
            _, reply = self.open()
            threading.Timer(0.6, self.go_on.release).start()
            reply.begin()
            self.assertEqual(reply.readline(), b"id: 1\n")

    def test_what_is_closed_before_it_is_read_leaves_nothing_open(self):
        self.stub.answer = self.stream
        self.assertEqual(self.ask("stream", "HEAD").status_code, 200)
        self.wait("closed after HEAD", lambda: self.go_on.release() or self.ended.wait(0.02))
        self.ended.clear()
        # The test client waits for a first message.
        self.go_on.release()
        # The reference is held: closing is what counts, not that the object goes.
        reply = self.app.test_client().get("/api/supervisor/stream")
        reply.close()
        self.wait("closed unread", lambda: self.go_on.release() or self.ended.wait(0.02))
        self.assertEqual(reply.status_code, 200)


class Trouble(Case):
    def at(self, path, method="GET", **options):
        self.app = self.make_app(path)
        return self.ask("services/web/stop" if method == "POST" else "status", method, **options)

    def test_no_socket(self):
        reply = self.at(self.folder + "/none.sock")
        self.assert_problem(
            reply, 503, "unreachable", "none.sock (No such file", "systemctl start", "PROCESS_SUPERVISOR_SOCKET"
        )
        self.assertEqual(reply.headers["Retry-After"], "5")
        self.assert_problem(self.at(self.stub.path + "/x"), 503, "unreachable", "Not a directory")
        self.assert_problem(self.at("/" + "x" * 200), 503, "unreachable", "path too long")

    def test_a_socket_that_nobody_listens_on(self):
        dead = self.folder + "/dead.sock"
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(dead)
        self.assert_problem(self.at(dead), 503, "unreachable", "Connection refused")

    def test_a_queue_that_is_full(self):
        path = self.folder + "/full.sock"
        listener = socket.socket(socket.AF_UNIX)
        self.addCleanup(listener.close)
        listener.bind(path)
        listener.listen(0)
        waiting = socket.socket(socket.AF_UNIX)
        self.addCleanup(waiting.close)
        waiting.connect(path)
        self.assert_problem(self.at(path), 503, "busy", "ask again")

    def test_permission_denied_names_user_group_and_command(self):
        os.chmod(self.folder, 0o755)
        os.chown(self.stub.path, 0, 2) if os.geteuid() == 0 else None
        os.chmod(self.stub.path, 0o660 if os.geteuid() == 0 else 0)
        reply = as_nobody(lambda: self.at(self.stub.path))
        self.assertEqual((reply["status"], reply["type"]), (502, "urn:process-supervisor:problem:not_permitted"))
        self.assertIn("sudo usermod -aG ", reply["detail"])
        if os.geteuid() == 0:
            self.assertIn("this app runs as nobody", reply["detail"])
            self.assertIn("the group bin.", reply["detail"])
            os.chown(self.stub.path, 0, 0)
            self.assertIn(
                "sudo groupadd --system process-supervisor", as_nobody(lambda: self.at(self.stub.path))["detail"]
            )
            os.chmod(self.folder, 0o700)
            self.assertIn("-aG process-supervisor nobody", as_nobody(lambda: self.at(self.stub.path))["detail"])

    def test_a_supervisor_that_goes_before_it_answers(self):
        for cut in [b"", b"HTTP/1.1 2", b"hello\r\n\r\n"]:
            self.stub.answer = cut
            self.assert_problem(self.at(self.stub.path), 502, "gone", "ask again")
        self.assert_problem(self.at(self.stub.path, "POST"), 502, "gone", "not known")
        self.assertEqual(len(self.stub.asked), 4, "nothing is asked twice")

    def test_a_supervisor_that_does_not_answer(self):
        stop = threading.Event()
        self.addCleanup(stop.set)
        self.stub.answer = lambda _: stop.wait(DEADLINE) and None
        with mock.patch("supervisor.api_routes._READ_TIME", 0.2), mock.patch("supervisor.api_routes._ORDER_TIME", 0.4):
            self.assert_problem(self.at(self.stub.path), 504, "no_answer", "in time; ask again")
            self.assert_problem(self.at(self.stub.path, "POST"), 504, "no_answer", "not known")

    def test_an_order_may_take_longer_than_a_read(self):
        def slowly(connection):
            threading.Event().wait(0.6)
            connection.sendall(answer(b"done"))

        self.stub.answer = slowly
        with mock.patch("supervisor.api_routes._READ_TIME", 0.2):
            self.assertEqual(self.at(self.stub.path, "POST").data, b"done")


def as_nobody(ask):
    """The problem document that a user without rights gets."""
    if os.geteuid() != 0:
        return ask().json
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            os.write(writer, ask().data)
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader, "rb") as pipe:
        return json.loads(pipe.read())


class Package(TestCase):
    def test_it_is_installed_and_has_the_version_of_the_supervisor(self):
        cargo = (Path(__file__).parents[3] / "Cargo.toml").read_text()
        version = re.search(r'^version = "(.+)"$', cargo, re.M).group(1)
        self.assertEqual(metadata.version("process-supervisor-flask"), version)

    def test_supervisord_s_files_are_not_ours(self):
        files = [
            str(file) for file in metadata.files("process-supervisor-flask") if str(file).startswith("supervisor/")
        ]
        self.assertEqual([file for file in files if "__pycache__" not in file], ["supervisor/api_routes.py"])
