"""The same work for this product, systemd itself, supervisord, PM2 and Monit: `make bench`, which writes BENCHMARKS.md.

    for each round, size and peer, in turns: configure -> start -> measure -> stop

Runs in the private systemd. A peer that is not installed is left out by name. The services are the same shell script
everywhere; it says that it runs, with its process, and sleeps.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from report import Figure, write
from supervisors import ALL, ROOT, Service

SIZES = (1, 100, 500, 1000)
MIDDLE = 100
CRASHES = 20
COMMANDS = 10
# Longer than it takes any of them to find that its services stay up.
SETTLE = 4
WATCHED = 20
# Who has not started all by then is not asked to start more, and who takes long is asked once.
PATIENCE = 120
LONG = 30
SERVICE = "echo \"$1 $$\" >{fifo}\nexec sleep 1000000\n"
# Leaves a process behind that is nobody's child and in a session of its own.
FORKS = "(setsid sh -c 'echo $$ >{left}; exec sleep 1000000' &)\n" + SERVICE

BEGUN = time.monotonic()


class TooSlow(Exception):
    pass


class Field:
    """A folder, and the pipe into which services report."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="peers-"))
        fifo = self.folder / "reports"
        os.mkfifo(fifo)
        # Open for writing, too: it never ends.
        self.fifo = os.fdopen(os.open(fifo, os.O_RDWR), buffering=1)
        os.set_blocking(self.fifo.fileno(), False)
        self.rest = ""
        self.script("service", SERVICE)
        self.script("forks", FORKS)

    def script(self, name, text):
        (self.folder / name).write_text(text.format(fifo=self.folder / "reports", left=self.folder / "left"))

    def services(self, count, script="service", port=None):
        return [Service(f"bench-{n}", ["/bin/sh", str(self.folder / script), f"bench-{n}"], port) for n in range(count)]

    def reports(self, count, limit=PATIENCE):
        """Waits for so many, and gives the process of each service."""
        end, found = time.monotonic() + limit, {}
        while count > 0:
            if time.monotonic() > end:
                raise TooSlow
            try:
                self.rest += os.read(self.fifo.fileno(), 65536).decode()
            except BlockingIOError:
                time.sleep(0.0005)
                continue
            *lines, self.rest = self.rest.split("\n")
            for line in lines:
                name, pid = line.split()
                found[name] = int(pid)
                count -= 1
        return found

    def quiet(self):
        """What was still to be reported, after a while."""
        time.sleep(SETTLE)
        late = {}
        while True:
            try:
                late |= self.reports(1, limit=0.01)
            except TooSlow:
                return late

    def end(self):
        self.fifo.close()
        shutil.rmtree(self.folder)


class Run:
    """A peer with its services up, from nothing; gone at the end, whatever it left."""

    def __init__(self, kind, count, **more):
        # What it took for the run before is given back.
        subprocess.run(["systemctl", "daemon-reexec"], check=True)
        self.field = Field()
        self.resting = memory_of([1])
        self.peer = kind(self.field.folder, self.field.services(count, **more))
        begun = time.monotonic()
        try:
            self.peer.start()
            self.pids = self.field.reports(count)
        except TooSlow:
            failed, log = self.peer.failed(), self.field.folder / "log"
            words = log.read_text(errors="replace") if failed else ""
            self.end()
            if failed:
                raise RuntimeError(f"{kind.name} ended: {words}") from None
            raise
        self.took = time.monotonic() - begun

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()

    def end(self):
        self.peer.end()
        subprocess.run(["pkill", "-KILL", "-f", "^sleep 1000000"], check=False)
        self.field.end()


def kill(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def alive(pid):
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def memory_of(pids):
    """Resident, in MiB."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                total += int(line.split()[1]) / 1024
    return total


def cpu_of(pids):
    """Seconds so far, to the nanosecond: the clock of a process is numbered after it (clock_getcpuclockid)."""
    return sum(time.clock_gettime((~pid << 3) | 2) for pid in pids)


# What is measured.


def sizes(figures, kinds, rounds):
    """Start of all, and memory once they are up."""
    slow = set()
    for _ in range(rounds):
        for size in SIZES:
            for kind in kinds:
                if (kind, size) in slow:
                    continue
                try:
                    with Run(kind, size) as run:
                        time.sleep(SETTLE)
                        figures["start", size].add(kind, run.took)
                        if run.peer.pids():
                            figures["memory", size].add(kind, memory_of(run.peer.pids()))
                        else:
                            figures["memory", size].say(kind, "is PID 1")
                        figures["manager", size].add(kind, memory_of([1]) - run.resting)
                        if run.took > LONG:
                            slow.add((kind, size))
                except TooSlow:
                    figures["start", size].say(kind, f"not in {PATIENCE} s")
                    slow |= {(kind, more) for more in SIZES if more >= size}
                progress(f"{kind.name} {size}")


def steady(figures, kinds):
    """Idle, crashes and the command that shows all, with a hundred services."""
    for kind in kinds:
        with Run(kind, MIDDLE) as run:
            time.sleep(SETTLE)
            pids = run.peer.pids() or [1]
            before = cpu_of(pids)
            time.sleep(WATCHED)
            figures["idle"].add(kind, (cpu_of(pids) - before) / WATCHED * 100)
            for n in range(CRASHES):
                begun = time.monotonic()
                os.kill(run.pids[f"bench-{n}"], signal.SIGKILL)
                run.pids |= run.field.reports(1)
                figures["crash"].add(kind, (time.monotonic() - begun) * 1000)
                time.sleep(0.2)
            for _ in range(COMMANDS):
                begun = time.monotonic()
                run.peer.show()
                figures["show"].add(kind, (time.monotonic() - begun) * 1000)
        progress(f"{kind.name} steady")


def probes(figures, kinds, port, took):
    """CPU for one TCP probe: a hundred services, each probed once a second."""
    for kind in kinds:
        if not kind.probes:
            figures["probe"].say(kind, "has none")
            continue
        with Run(kind, MIDDLE, port=port) as run:
            time.sleep(SETTLE)
            pids = run.peer.pids()
            before, count = cpu_of(pids), took()
            time.sleep(WATCHED)
            figures["probe"].add(kind, (cpu_of(pids) - before) / max(1, took() - count) * 1e6)
        progress(f"{kind.name} probes")


def survival(figures, kinds):
    """SIGKILL of the supervisor, and a new one."""
    count = 20
    for kind in kinds:
        with Run(kind, count) as run:
            pids = run.peer.pids()
            if not pids:
                figures["survive"].say(kind, "is PID 1")
                figures["twice"].say(kind, "is PID 1")
                continue
            time.sleep(SETTLE)
            kill(pids[0])
            time.sleep(1)
            run.peer.start()
            again = run.field.quiet()
            lasting = [name for name, pid in run.pids.items() if alive(pid)]
            twice = [name for name in lasting if name in again and alive(again[name])]
            figures["survive"].say(kind, f"{len(lasting)} of {count}")
            figures["twice"].say(kind, f"{len(twice)} of {count}")
        progress(f"{kind.name} survival")


def leaks(figures, kinds):
    """A process in the background of a service that is stopped."""
    for kind in kinds:
        with Run(kind, 1, script="forks") as run:
            time.sleep(SETTLE)
            left = int((run.field.folder / "left").read_text())
            run.peer.stop("bench-0")
            end = time.monotonic() + 30
            while alive(run.pids["bench-0"]) and time.monotonic() < end:
                time.sleep(0.05)
            time.sleep(1)
            figures["leak"].say(kind, "yes" if alive(left) else "no")
            kill(left)
        progress(f"{kind.name} leaks")


def progress(what):
    print(f"{time.monotonic() - BEGUN:6.0f} s  {what}", file=sys.stderr, flush=True)


def listener():
    """A port that takes connections, and how many it took."""
    program = Path(__file__).with_name("listener.py")
    child = subprocess.Popen([sys.executable, program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    port = int(child.stdout.readline())

    def took():
        child.stdin.write("\n")
        child.stdin.flush()
        return int(child.stdout.readline())

    return child, port, took


def main():
    words = argparse.ArgumentParser()
    words.add_argument("--rounds", type=int, default=3)
    words.add_argument("--own", type=Path, required=True, help="what the other benchmarks printed")
    words.add_argument("report", type=Path)
    given = words.parse_args()
    # The group that a package brings: who looks for one that is not there loads further libraries.
    subprocess.run(["systemd-sysusers", ROOT / "packaging/process-supervisor.sysusers"], check=True)
    kinds = [kind for kind in ALL if kind.installed()]
    for kind in set(ALL) - set(kinds):
        print(f"{kind.name} is not installed, and left out", file=sys.stderr)
    figures = Figure.all(SIZES, MIDDLE)
    sizes(figures, kinds, given.rounds)
    steady(figures, kinds)
    child, port, took = listener()
    probes(figures, kinds, port, took)
    child.kill()
    survival(figures, kinds)
    leaks(figures, kinds)
    write(given.report, kinds, figures, given.own.read_text(), SIZES)


if __name__ == "__main__":
    main()
