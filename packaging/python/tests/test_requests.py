"""What reaches the supervisor, and what does not."""

import functools
import http.client
import socket
import unittest
from unittest import mock

from flask import Flask, abort, request

import supervisor.api_routes as api_routes
from stub import Case
from supervisor.api_routes import register_supervisor_routes


class Forwarding(Case):
    def test_method_path_query_and_body_arrive_as_they_were_sent(self):
        for method, path, sent in [
            ("GET", "status", "/api/supervisor/status"),
            (
                "POST",
                "services/web-1.x_y/stop?wait=false&timeout=1.5",
                "/api/supervisor/services/web-1.x_y/stop?wait=false&timeout=1.5",
            ),
            ("GET", "openapi.json", "/api/supervisor/openapi.json"),
            ("GET", "events?service=a%20b&type=%26%2F%25+x", "/api/supervisor/events?service=a%20b&type=%26%2F%25+x"),
            ("HEAD", "status", "/api/supervisor/status"),
            ("DELETE", "alerts/7/ack", "/api/supervisor/alerts/7/ack"),
        ]:
            with self.subTest(path=path):
                self.ask(path, method, data=b'{"a": 1}' if method == "POST" else None, content_type="application/json")
                asked = self.stub.asked.pop()
                self.assertEqual(asked.line, f"{method} {sent} HTTP/1.1")
                self.assertEqual(asked.body, b'{"a": 1}' if method == "POST" else b"")

    def test_only_named_headers_arrive(self):
        self.ask(
            "stream",
            headers={
                "Accept": "text/event-stream",
                "Authorization": "Bearer app",
                "Connection": "keep-alive, X-Secret",
                "Cookie": "session=app",
                "Host": "dash.example",
                "If-None-Match": '"x"',
                "Last-Event-ID": "812.5",
                "Origin": "https://elsewhere.example",
                "Proxy-Authorization": "Basic x",
                "Transfer-Encoding": "identity",
                "Upgrade": "websocket",
                "X-CSRFToken": "t",
                "X-Forwarded-For": "1.2.3.4",
            },
        )
        self.assertEqual(
            sorted(self.stub.asked[0].headers),
            [
                ("Accept", "text/event-stream"),
                ("Accept-Encoding", "identity"),
                ("Connection", "close"),
                ("Host", "localhost"),
                ("If-None-Match", '"x"'),
                ("Last-Event-ID", "812.5"),
            ],
        )

    def test_a_control_character_is_no_way_to_another_header(self):
        for value in ["a\r\nX-Evil: 1", "a\n folded", "a\0"]:
            reply = self.ask("status", environ_overrides={"HTTP_LAST_EVENT_ID": value})
            self.assert_problem(reply, 400, "bad_request", "Last-Event-ID")
        self.assertEqual(self.stub.asked, [])

    def test_the_query_cannot_leave_the_request_line(self):
        self.ask("events", environ_overrides={"QUERY_STRING": "a=\r\nX: 1 #\xe9"})
        self.assertEqual(self.stub.asked[0].target, "/api/supervisor/events?a=%0D%0AX:%201%20%23%E9")

    def test_another_prefix_and_two_supervisors(self):
        self.app = Flask("dashboard")
        register_supervisor_routes(self.app, self.stub.path)
        register_supervisor_routes(self.app, self.folder + "/none.sock", url_prefix="/mine")
        self.ask("status")
        self.assertEqual(self.app.test_client().get("/mine/status").status_code, 503)
        self.assertEqual([asked.target for asked in self.stub.asked], ["/api/supervisor/status"])


class Paths(Case):
    def test_nothing_but_plain_parts(self):
        port = self.serve()
        for path in [
            "..",
            "../../metrics",
            "services/../../../metrics",
            "%2e%2e/%2e%2e/metrics",
            "services/%2E%2E/status",
            "services/.",
            "services/.hidden",
            "services/a%2fstop",
            "services/a%2Fstop",
            "services/a%5cstop",
            "services/a%252fstop",
            "services/a%00",
            "services/a%0d%0aX:%201",
            "services/a%20b",
            "services/a;b=c",
            "services/%C3%A9",
            "services/%FF",
            "services//web",
            "services/web/",
            "a@evil",
            "a%3Fwait=false",
            "a%23b",
            "http://evil.example/",
        ]:
            with self.subTest(path=path):
                line = f"GET /api/supervisor/{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
                # 308: Flask joins double slashes, within the same site.
                self.assertIn(self.status_of(port, line.encode()), (400, 404, 308))
        for line in ["GET http://evil.example/metrics HTTP/1.1", "GET //evil.example/api/supervisor/status HTTP/1.1"]:
            self.assertEqual(self.status_of(port, f"{line}\r\nHost: x\r\n\r\n".encode()), 404)
        self.assertEqual([asked.line for asked in self.stub.asked], [])

    def test_the_refusal_says_what_is_expected(self):
        self.assert_problem(self.ask("services/a%20b"), 400, "bad_request", "'services/a b'", "letters, digits")

    def test_tokens_are_for_the_host_alone(self):
        reply = self.ask("token/rotate", "POST")
        self.assert_problem(reply, 403, "socket_only", "supervisorctl token rotate")
        self.assertEqual(self.stub.asked, [])


class Bodies(Case):
    def test_as_large_as_the_supervisor_takes_and_no_larger(self):
        limit = 64 * 1024
        self.assertEqual(self.ask("metrics", "POST", data=b"x" * limit).status_code, 200)
        self.assertEqual(len(self.stub.asked.pop().body), limit)
        self.assert_problem(self.ask("metrics", "POST", data=b"x" * (limit + 1)), 413, "too_large", str(limit))
        self.assertEqual(self.stub.asked, [])

    def test_a_body_in_chunks_has_the_same_bound(self):
        port = self.serve()
        for size, status in [(64 * 1024, 200), (64 * 1024 + 1, 413)]:
            client = http.client.HTTPConnection("127.0.0.1", port)
            client.request(
                "POST", "/api/supervisor/metrics", iter([b"x" * 1000, b"y" * (size - 1000)]), encode_chunked=True
            )
            self.assertEqual(client.getresponse().status, status)
            client.close()
        self.assertEqual([len(asked.body) for asked in self.stub.asked], [64 * 1024])
        self.assertEqual(self.stub.asked[0].header("Transfer-Encoding"), [])

    def test_half_a_body_is_no_order(self):
        port = self.serve()
        client = self.raw(port, b"POST /api/supervisor/metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n[1,")
        client.shutdown(socket.SHUT_WR)
        self.assertIn(b" 400 ", client.recv(100))
        self.assertEqual(self.stub.asked, [])

    def test_a_hook_that_reads_the_body_does_not_take_it_away(self):
        @self.app.before_request
        def look():
            request.form.get("csrf")
            request.get_json(silent=True)

        self.ask("services/web/signal", "POST", json={"signal": "HUP"})
        self.assertEqual(self.stub.asked[0].body, b'{"signal": "HUP"}')

    def test_the_bound_of_the_app_counts_too(self):
        self.app.config["MAX_CONTENT_LENGTH"] = 10
        self.assert_problem(self.ask("metrics", "POST", data=b"x" * 11), 413, "too_large")


class OtherSites(Case):
    def post(self, headers, **options):
        return self.ask("services/web/stop", "POST", headers=headers, base_url="http://dash.example", **options)

    def test_an_order_of_another_site_is_refused(self):
        for headers in [
            {"Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "same-site"},
            {"Sec-Fetch-Site": "same-origin, cross-site"},
            {"Sec-Fetch-Site": ""},
            {"Sec-Fetch-Site": "cross-site", "Origin": "http://dash.example"},
            {"Origin": "http://evil.example"},
            {"Origin": "http://dash.example.evil"},
            {"Origin": "http://dash.example:81"},
            {"Origin": "http://dash.example@evil"},
            {"Origin": "null"},
            {"Origin": "http://["},
            {"Origin": ""},
        ]:
            with self.subTest(headers=headers):
                self.assert_problem(self.post(headers), 403, "cross_site", "dash.example", "Host header")
        self.assertEqual(self.stub.asked, [])

    def test_an_order_of_the_app_s_pages_or_of_no_browser_is_taken(self):
        for headers in [
            {},
            {"Sec-Fetch-Site": "same-origin", "Origin": "http://other.behind.proxy"},
            {"Sec-Fetch-Site": "none"},
            {"Origin": "http://dash.example"},
            {"Origin": "http://DASH.example"},
            {"Origin": "https://dash.example"},
            {"Origin": "https://dash.example", "Host": "dash.example:443"},
        ]:
            with self.subTest(headers=headers):
                self.assertEqual(self.post(headers).status_code, 200)

    def test_reading_changes_nothing_and_is_let_through(self):
        self.assertEqual(self.ask("status", headers={"Sec-Fetch-Site": "cross-site"}).status_code, 200)


class Authentication(Case):
    def test_hooks_of_the_app_come_first(self):
        self.app.before_request(lambda: None if request.headers.get("X-User") else abort(401))
        self.assertEqual(self.ask("services/web/stop", "POST").status_code, 401)
        self.assertEqual(self.stub.asked, [])
        self.assertEqual(self.ask("status", headers={"X-User": "a"}).status_code, 200)

    def test_a_decorator_of_the_app_comes_first(self):
        def login_required(view):
            @functools.wraps(view)
            def guarded(**arguments):
                return view(**arguments) if request.headers.get("X-User") else ("who are you?", 401)

            return guarded

        self.app = self.make_app(authorize=login_required)
        for path in ["status", "../x", "token/rotate"]:
            self.assertEqual(self.ask(path).status_code, 401)
        self.assertEqual(self.stub.asked, [])
        self.assertEqual(self.ask("status", headers={"X-User": "a"}).status_code, 200)

    def test_an_app_that_asks_nobody_is_told_once(self):
        self.app = Flask("dashboard")
        register_supervisor_routes(self.app, self.stub.path)
        with self.assertLogs("supervisor.api_routes", "WARNING") as logs:
            self.ask("status")
            self.ask("status")
        self.assertEqual(len(logs.output), 1)
        self.assertIn("whoever reaches the app can stop services", logs.output[0])
        with self.assertNoLogs("supervisor.api_routes") if hasattr(self, "assertNoLogs") else mock.MagicMock():
            self.app = self.make_app()
            self.ask("status")


class Places(unittest.TestCase):
    def test_environment_then_the_user_s_own_then_the_system_s(self):
        system = "/run/process-supervisor/supervisor.sock"
        own = "/run/user/7/process-supervisor/supervisor.sock"
        for environ, uid, exists, found in [
            ({"PROCESS_SUPERVISOR_SOCKET": "/x"}, 7, True, "/x"),
            ({"XDG_RUNTIME_DIR": "/r"}, 7, True, "/r/process-supervisor/supervisor.sock"),
            ({}, 7, True, own),
            ({}, 7, False, system),
            ({}, 0, True, system),
        ]:
            with self.subTest(environ=environ, uid=uid), mock.patch.dict("os.environ", environ, clear=True):
                with mock.patch("os.geteuid", return_value=uid), mock.patch("os.path.exists", return_value=exists):
                    self.assertEqual(api_routes._default_socket(), found)
