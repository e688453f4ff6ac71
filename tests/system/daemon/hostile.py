"""A web server that behaves until the file FLAG is there, and then does its worst: MODE PORT FLAG [CERTIFICATE KEY]."""

import os
import socket
import ssl
import sys
import threading
import time

mode, port, flag = sys.argv[1], int(sys.argv[2]), sys.argv[3]
GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
tls = None
if len(sys.argv) > 4:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(sys.argv[4], sys.argv[5])


def evil():
    return os.path.exists(flag)


def read_request(client):
    head = b""
    while b"\r\n\r\n" not in head:
        more = client.recv(4096)
        if not more:
            return
        head += more


def misbehave(client):
    if mode == "silent":
        while client.recv(4096):
            pass
    elif mode == "trickle":
        read_request(client)
        for byte in GOOD:
            client.sendall(bytes([byte]))
            time.sleep(1)
    elif mode == "endless":
        read_request(client)
        client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            client.sendall(b"x" * 65536)
    elif mode == "redirect":
        read_request(client)
        client.sendall(b"HTTP/1.1 302 Found\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n")
    elif mode == "garbage":
        client.sendall(b"\x00\x01\xff garbage \r\n\r\n" * 20)
        read_request(client)
    # "close" does nothing at all


def serve(client):
    try:
        client.settimeout(30)
        if tls:
            client = tls.wrap_socket(client, server_side=True)
        if evil():
            misbehave(client)
        else:
            read_request(client)
            client.sendall(GOOD)
    except OSError:
        pass
    finally:
        client.close()


listener = socket.create_server(("127.0.0.1", port), backlog=64)
listener.settimeout(0.1)
if "NOTIFY_SOCKET" in os.environ:
    path = os.environ["NOTIFY_SOCKET"]
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify.sendto(b"READY=1", "\0" + path[1:] if path[0] == "@" else path)
held = []
while True:
    if mode == "exhausted" and evil():
        try:
            while True:
                held.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            pass
    elif held:
        while held:
            os.close(held.pop())
    if mode == "unaccepting" and evil():
        time.sleep(0.1)
        continue
    try:
        client, _ = listener.accept()
    except OSError:
        time.sleep(0.02)
        continue
    threading.Thread(target=serve, args=(client,), daemon=True).start()
