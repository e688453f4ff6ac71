"""Takes connections on a port of 127.0.0.1, which it prints; for each line of its input, prints how many it took."""

import socket
import sys
import threading

took = 0
server = socket.create_server(("127.0.0.1", 0), backlog=512)
print(server.getsockname()[1], flush=True)


def take():
    global took
    while True:
        server.accept()[0].close()
        took += 1


threading.Thread(target=take, daemon=True).start()
for _ in sys.stdin:
    print(took, flush=True)
