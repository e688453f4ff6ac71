"""HTTP over a Unix socket."""

import http.client
import socket


class Client(http.client.HTTPConnection):
    """A connection to the server at `path`."""

    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))
