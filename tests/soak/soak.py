"""Does anything grow? `make soak`, or `make soak MINUTES=20`, in the private systemd.

    services that crash, answer, fail and talk without an end, clients of every kind -> a sample of the daemon every few
    seconds -> its last quarter beside its second one

Time is compressed: what a service does in a day is done in minutes, with the shortest intervals that the configuration
allows, and the rows of the database are made old by another program that writes to it, so that they are cleaned away.
"""

import argparse
import itertools
import json
import os
import shutil
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "scripts"))
from plot import plot  # noqa: E402
from unix_http import Client  # noqa: E402

EVERY = 5
# Rows that a day of this run keeps; older ones are made as old as a month.
KEPT = {"supervisor_metrics": 20_000, "supervisor_events": 20_000}
# By how much the last quarter may be above the second: a part of it, and a bit.
FLAT = {
    "resident memory, MiB": (0.05, 1.0),
    "descriptors": (0.02, 4),
    "threads": (0.0, 1),
    "database, MiB": (0.10, 2.0),
    "answer, ms": (0.50, 2.0),
    "order, ms": (0.50, 5.0),
}
STAY = "exec sleep 1000000"


class Soak:
    def __init__(self, folder, program):
        self.folder, self.over = folder, threading.Event()
        self.socket, self.database = folder / "runtime/supervisor.sock", folder / "state/architect.db"
        self.config = folder / "supervisor_config.json"
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.services = self.plan()
        self.write(0)
        env = dict(os.environ, STATE_DIRECTORY=f"{folder}/state", RUNTIME_DIRECTORY=f"{folder}/runtime")
        log = open(folder / "log", "wb")
        self.child = subprocess.Popen([program, "--config", self.config], env=env, stdin=subprocess.DEVNULL, stderr=log)
        self.trouble, self.samples = [], []
        self.orders = itertools.count()

    def plan(self):
        """Of every kind, as quick as may be."""
        port = self.listener.getsockname()[1]
        tcp = {"type": "tcp", "port": port, "interval": 0.1, "timeout": 0.1}
        at_once = {"retry_delay": 0.05, "max_backoff": 0.2, "max_retries": -1}
        services = {}

        def add(kind, count, script, **more):
            for n in range(count):
                services[f"{kind}-{n}"] = {"command": "/bin/sh", "args": ["-c", script], **more}

        add("calm", 20, STAY)
        add("tcp", 15, STAY, port=0, health_check=tcp)
        add("exec", 3, STAY, health_check={"type": "exec", "command": "/bin/true", "interval": 1})
        add("crash", 6, "sleep 2\nexit 3", restart_policy=at_once)
        add("sick", 2, STAY, restart_policy=at_once,
            health_check={"type": "exec", "command": "/bin/false", "interval": 1, "failure_threshold": 3})
        add("talk", 2, "while :; do echo a line of the log; sleep 0.1; done")
        add("leak", 1, "sleep 1\nwhile :; do x=$x$x$x.; done", restart_policy=at_once, resource_limits={"max_memory_mb": 16})
        return services

    def write(self, turn):
        """Another configuration each time: one service comes and goes, one changes."""
        services = dict(self.services)
        if turn % 2:
            services["guest"] = {"command": "/bin/sleep", "args": ["1000000"]}
        services["calm-0"] = {**services["calm-0"], "environment": {"TURN": str(turn)}}
        new = self.folder / "new"
        new.write_text(json.dumps({"supervisor": {"listen": [], "metrics_interval": 1}, "services": services}))
        new.rename(self.config)

    def ask(self, method, path):
        client = Client(self.socket, timeout=60)
        try:
            client.request(method, f"/api/supervisor/{path}")
            answer = client.getresponse()
            return answer.status, answer.read()
        finally:
            client.close()

    # Those who keep it busy.

    def run_all(self, minutes):
        tasks = [self.take, self.look, self.follow, self.leave_early, self.order, self.reload, self.age]
        threads = [threading.Thread(target=self.guarded, args=(task,), daemon=True) for task in tasks]
        self.wait_until_up()
        for thread in threads:
            thread.start()
        end = time.monotonic() + minutes * 60
        while time.monotonic() < end and not self.trouble:
            self.over.wait(EVERY)
            self.sample(minutes * 60 - (end - time.monotonic()))
        self.over.set()

    def guarded(self, task):
        try:
            while not self.over.is_set():
                task()
        except Exception as error:  # noqa: BLE001 - whatever it is, the run failed
            if not self.over.is_set():
                self.trouble.append(f"{task.__name__}: {error!r}")

    def wait_until_up(self):
        end = time.monotonic() + 60
        while not self.socket.exists():
            if time.monotonic() > end or self.child.poll() is not None:
                raise SystemExit((self.folder / "log").read_text())
            time.sleep(0.1)

    def take(self):
        self.listener.accept()[0].close()

    def look(self):
        """A dashboard that asks, and Prometheus."""
        for path in ("status", "summary", "events?limit=100", "services/tcp-0", "services/tcp-0/metrics", "alerts"):
            status, body = self.ask("GET", path)
            if status != 200:
                raise AssertionError(f"GET {path}: {status} {body[:200]}")
        self.over.wait(0.5)

    def follow(self):
        """A reader of everything, for a while."""
        self.read("stream", 20)

    def leave_early(self):
        """Readers of the log and of the stream that go in the middle of a line."""
        self.read("services/talk-0/logs?follow=true", 1)
        self.read("stream", 0.2)

    def read(self, path, seconds):
        client = Client(self.socket, timeout=60)
        client.request("GET", f"/api/supervisor/{path}")
        answer = client.getresponse()
        if answer.status != 200:
            raise AssertionError(f"GET {path}: {answer.status} {answer.read()[:200]}")
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self.over.is_set():
            answer.read1(65536)
        client.close()

    def order(self):
        verb = ("restart", "stop", "start")[next(self.orders) % 3]
        status, body = self.ask("POST", f"services/calm-1/{verb}")
        if status != 200:
            raise AssertionError(f"POST {verb}: {status} {body[:200]}")
        self.over.wait(0.3)

    def reload(self):
        for turn in itertools.count():
            self.write(turn)
            status, body = self.ask("POST", "reload")
            if status != 200:
                raise AssertionError(f"reload: {status} {body[:200]}")
            if self.over.wait(5):
                return

    def age(self):
        """The days that pass."""
        with sqlite3.connect(self.database, timeout=60) as database:
            for table, kept in KEPT.items():
                database.execute(
                    f"UPDATE {table} SET timestamp = '2020-01-01 00:00:00' WHERE timestamp > '2020-01-02' "
                    f"AND id < (SELECT max(id) FROM {table}) - ?", (kept,))
        database.close()
        self.over.wait(20)

    # What is seen.

    def sample(self, since):
        if self.child.poll() is not None:
            self.trouble.append(f"the supervisor ended with {self.child.returncode}")
            return
        pid = self.child.pid
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        files = [self.database, Path(f"{self.database}-wal")]
        now = {
            "resident memory, MiB": int(status["VmRSS"].split()[0]) / 1024,
            "descriptors": len(os.listdir(f"/proc/{pid}/fd")),
            "threads": int(status["Threads"]),
            "database, MiB": sum(file.stat().st_size for file in files if file.exists()) / 1024 / 1024,
            "answer, ms": self.timed("GET", "status"),
            # Through the loop and the disk: of a service that is up.
            "order, ms": self.timed("POST", "services/calm-2/start"),
        }
        self.samples.append((since, now))
        if len(self.samples) % 12 == 0:
            print(f"{since / 60:6.1f} min  " + "  ".join(f"{what} {value:.1f}" for what, value in now.items()), flush=True)

    def timed(self, method, path):
        begun = time.monotonic()
        status, body = self.ask(method, path)
        if status != 200:
            self.trouble.append(f"{method} {path}: {status} {body[:200]}")
        return (time.monotonic() - begun) * 1000

    def verdict(self):
        """What is not flat."""
        quarter = len(self.samples) // 4
        if quarter < 3:
            return ["too short to tell"]
        grown = []
        for what, (part, more) in FLAT.items():
            values = [now[what] for _, now in self.samples]
            before, after = statistics.median(values[quarter:2 * quarter]), statistics.median(values[-quarter:])
            hours = (self.samples[-1][0] - self.samples[0][0]) / 3600
            slope = statistics.linear_regression(
                [since / 3600 for since, _ in self.samples[quarter:]], values[quarter:]).slope
            print(f"{what}: second quarter {before:.2f}, last quarter {after:.2f}, {slope:+.2f} an hour over {hours:.1f} h; "
                  f"most {max(values):.2f}")
            if after > before * (1 + part) + more:
                grown.append(f"{what} grew from {before:.2f} to {after:.2f}")
        return grown

    def end(self):
        self.child.send_signal(signal.SIGINT)
        try:
            self.child.wait(timeout=120)
        except subprocess.TimeoutExpired:
            self.child.kill()


def main():
    words = argparse.ArgumentParser()
    words.add_argument("--minutes", type=float, default=120)
    words.add_argument("--plots", type=Path, required=True, help="folder for the plots")
    words.add_argument("program")
    given = words.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    soak = Soak(folder, given.program)
    try:
        soak.run_all(given.minutes)
    finally:
        soak.end()
    given.plots.mkdir(parents=True, exist_ok=True)
    for what in FLAT:
        line = [(since / 60, now[what]) for since, now in soak.samples]
        name, unit = what.split(", ") if ", " in what else (what, "number")
        (given.plots / f"soak-{name.replace(' ', '-')}.svg").write_text(plot(name, unit, "minutes", {name: line}))
    wrong = soak.trouble or soak.verdict()
    if wrong:
        log = (folder / "log").read_text(errors="replace").splitlines()[-50:]
        sys.exit("\n".join([*wrong, *(log if soak.trouble else [])]))
    shutil.rmtree(folder)
    print("flat")


if __name__ == "__main__":
    main()
