"""Faults by chance, in the private systemd: `make faults`, or `make faults SEED=7 STEPS=1000`.

    a seed -> one fault after another -> after each: does everything hold?

The supervisor is a unit that systemd restarts, as an installed one is. What is true is asked of systemd and of the
kernel, never of the supervisor. The same seed gives the same faults in the same order.
"""

import argparse
import glob
import http.client
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts"))
from unix_http import Client  # noqa: E402

UNIT = "faults-supervisor.service"
# Generous: two cores for a hundred services, and a fault that may be at work still.
SOON = 60
ANSWER = 1.0
# The lock of a service is held by another process of it: it runs twice.
TWICE = 99
STAY = "exec sleep 1000000"
# Without those that come and go all the time.
LAST_WORDS = f"journalctl --no-pager -o short-precise -u {UNIT} | grep -vE '(crash|leak)-[0-9]' | tail -n 100"
WORDS_ABOUT = f"journalctl --no-pager -o short-precise -u {UNIT} | grep -E 'supervisor-{{0}}[.]service|{{0}}: ' | tail -n 40"


class Violation(Exception):
    """With what is known of it."""

    def __init__(self, what, evidence=""):
        super().__init__(what)
        self.evidence = evidence


def sh(command, check=True):
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    if check and done.returncode:
        raise Violation(f"{command}: {done.stdout}{done.stderr}")
    return done.stdout.strip()


def until(what, probe, limit=SOON):
    """Waits for something true, and gives it."""
    end = time.monotonic() + limit
    while True:
        found = probe()
        if found:
            return found
        if time.monotonic() > end:
            raise Violation(f"not within {limit} s: {what() if callable(what) else what}")
        time.sleep(0.1)


def clock_library():
    places = ("/usr/lib/*/faketime", "/usr/lib*/faketime")
    found = [file for place in places for file in glob.glob(f"{place}/libfaketimeMT.so.1")]
    if not found:
        raise Violation("the package faketime is needed, for clocks that step")
    return found[0]


def kill(pid, number):
    """It may have gone by itself: the watchdog ends one that was hindered for too long."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


class Campaign:
    def __init__(self, folder, program, seed):
        self.folder, self.program = folder, program
        self.chance = random.Random(seed)
        self.state, self.runtime = folder / "state", folder / "runtime"
        self.config = folder / "supervisor_config.json"
        # What the supervisor takes for the time: a difference to the machine's, which is not for a test to set.
        self.clock = folder / "clock"
        self.services = self.plan()
        self.pids = {}
        # Units that others made under names like ours, and their processes.
        self.strangers = {}
        self.most = {"rss": 0, "descriptors": 0, "threads": 0, "answer": 0.0}
        # Since when the history is whole: a fault may take the database itself.
        self.history_from = 0

    # What is supervised.

    def plan(self):
        """A hundred services of every kind, with what becomes of each."""
        locks, flags, scripts = self.folder / "locks", self.folder / "flags", self.folder / "scripts"
        for folder in (locks, flags, scripts, self.state, self.runtime):
            folder.mkdir(parents=True)
        services = {}

        def add_one(name, script, aim, **more):
            # A file, since systemd writes a `;` in an argument as `\;` and runs that after a reload, if it is asked to
            # by another than the supervisor. The lock is the process's own, and gone with it.
            file = scripts / name
            file.write_text(f"exec 9>{locks}/{name}\nflock -n 9 || exit {TWICE}\n{script}\n")
            services[name] = ({"command": "/bin/sh", "args": [str(file)], **more}, aim)

        def add(kind, count, script, aim, **more):
            for n in range(count):
                add_one(f"{kind}-{n}", script, aim, **more)

        quick = {"retry_delay": 0.2, "max_backoff": 1, "max_retries": -1}
        add("calm", 40, STAY, "running", restart_policy=quick)
        add("limited", 8, STAY, "running", restart_policy=quick,
            resource_limits={"max_memory_mb": 64, "max_cpu_percent": 50, "max_tasks": 20})
        add("probed", 10, STAY, "running", restart_policy=quick,
            health_check={"type": "exec", "command": "/usr/bin/test", "args": ["-d", str(flags)], "interval": 5})
        add("notify", 4, f"systemd-notify --ready; {STAY}", "running", restart_policy=quick, type="notify",
            unit_properties={"NotifyAccess": "all"})
        add("crash", 12, "sleep 3; exit 3", "any", restart_policy=quick)
        add("leak", 2, "while :; do x=$x$x$x.; done", "any", restart_policy=quick,
            resource_limits={"max_memory_mb": 16})
        add("doomed", 6, "exit 4", "fatal", restart_policy={"retry_delay": 0.1, "max_retries": 2})
        add("once", 6, "exit 0", "stopped")
        add("off", 2, STAY, "stopped", enabled=False)
        for n in range(10):
            before = f"chain-{n - 1}" if n else "calm-0"
            add_one(f"chain-{n}", STAY, "running", restart_policy=quick, dependencies=[before])
        return services

    def write_config(self):
        services = {name: service for name, (service, _) in self.services.items()}
        supervisor = {"listen": [], "metrics_interval": 5}
        self.config.write_text(json.dumps({"supervisor": supervisor, "services": services}))

    def begin(self):
        sh(f"mount -t tmpfs -o size=64m tmpfs {self.state}")
        self.write_config()
        self.set_clock("+0")
        Path("/run/systemd/system", UNIT).write_text(f"""[Unit]
StartLimitIntervalSec=0
[Service]
Type=notify
Environment=STATE_DIRECTORY={self.state} RUNTIME_DIRECTORY={self.runtime}
Environment=LD_PRELOAD={clock_library()} FAKETIME_TIMESTAMP_FILE={self.clock}
Environment=FAKETIME_NO_CACHE=1 FAKETIME_DONT_FAKE_MONOTONIC=1
ExecStart={self.program} --config {self.config}
Restart=always
RestartSec=200ms
WatchdogSec=10
KillMode=mixed
LimitNOFILE=4096
""")
        for name, field in (("stranger", "NONE=1"), ("of-another", "SUPERVISOR_FOLDER=/run/another/env")):
            self.strangers[name] = self.make_stranger(name, f"-p LogExtraFields={field}")
        sh(f"systemctl daemon-reload && systemctl start {UNIT}")
        self.check("the start", set())

    def make_stranger(self, name, more=""):
        sh(f"systemd-run --quiet {more} --unit=supervisor-{name}.service sleep 1000000")
        return self.pid_of(name)

    def pid_of(self, name):
        return sh(f"systemctl show -P MainPID supervisor-{name}.service", check=False)

    def end(self):
        sh(f"systemctl stop {UNIT} supervisor.slice", check=False)
        for name in self.strangers:
            sh(f"systemctl stop supervisor-{name}.service", check=False)
        sh(f"umount -l {self.state}", check=False)

    # What is asked.

    def ask(self, method, path, timeout=30):
        client = Client(self.runtime / "supervisor.sock", timeout)
        try:
            client.request(method, f"/api/supervisor/{path}")
            answer = client.getresponse()
            return answer.status, json.loads(answer.read() or "null")
        finally:
            client.close()

    def answers(self):
        try:
            return self.ask("GET", "status", timeout=5)[1]["services"]
        except (OSError, http.client.HTTPException, ValueError, KeyError):
            return None

    def order(self, verb, name):
        """An order of which only the answer is of interest: it may be refused, or cut off."""
        try:
            return self.ask("POST", f"services/{name}/{verb}")[0]
        except (OSError, http.client.HTTPException, ValueError):
            return None

    def supervisor(self):
        return int(sh(f"systemctl show -P MainPID {UNIT}", check=False) or 0)

    def running(self):
        return [name for name, (_, aim) in self.services.items() if aim == "running"]

    def units(self):
        """What systemd has: name -> (active state, main pid)."""
        names = " ".join(f"supervisor-{name}.service" for name in self.services)
        text = sh(f"systemctl show -p Id,ActiveState,MainPID {names}", check=False)
        seen = {}
        for block in text.split("\n\n"):
            pairs = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
            if "Id" in pairs:
                name = pairs["Id"].removeprefix("supervisor-").removesuffix(".service")
                seen[name] = (pairs["ActiveState"], int(pairs["MainPID"]))
        return seen

    # What has to hold.

    def wrong(self):
        """Why not all is as it should be; nothing when it is."""
        before, units, after = self.answers(), self.units(), self.answers()
        if before is None or after is None:
            return "no answer"
        if set(after) != set(self.services):
            return "the list of services is another one"
        for name, (_, aim) in self.services.items():
            now = after[name]
            if aim != "any" and now["state"] != aim:
                return f"{name} is {now['state']}, not {aim}: {now['reason']}"
            if before[name]["since"] != now["since"]:
                if aim != "any":
                    return f"{name} has just changed"
                continue  # it moved while systemd was asked
            active, pid = units.get(name, ("inactive", 0))
            if (now["state"] == "running") != (active == "active"):
                return f"{name} is said to be {now['state']}, and systemd has it {active}"
            if now["state"] == "running" and now["pid"] != pid:
                return f"{name} is said to be process {now['pid']}, and is {pid}"
            if aim == "running" and now["health"] != "healthy":
                return f"{name} is {now['health']}"
        return None

    def check(self, fault, touched):
        """After a fault that was meant for the services in `touched` alone."""
        why = [None]

        def well():
            why[0] = self.wrong()
            return why[0] is None
        until(lambda: f"all well after {fault}: {why[0]}", well)
        begun = time.monotonic()
        status = self.ask("GET", "status")[1]["services"]
        took = time.monotonic() - begun
        if took > ANSWER:
            raise Violation(f"the API took {took:.2f} s after {fault}")
        self.most["answer"] = max(self.most["answer"], took)
        for name in self.running():
            pid = status[name]["pid"]
            if name not in touched and self.pids.get(name, pid) != pid:
                raise Violation(f"{name} was process {self.pids[name]} and is {pid} after {fault}, which was not meant for it")
            self.pids[name] = pid
        for name, pid in self.strangers.items():
            if self.pid_of(name) != pid:
                raise Violation(f"{name}, made by others, was process {pid} and is {self.pid_of(name)} after {fault}")
        self.check_history(fault)
        self.check_size(fault)

    def check_history(self, fault):
        # What is told is written in a moment.
        time.sleep(0.5)
        with sqlite3.connect(self.state / "architect.db", timeout=20) as database:
            events = database.execute(
                "SELECT id, service_id, event_type, details FROM supervisor_events WHERE id > ? ORDER BY id",
                (self.history_from,)).fetchall()
        last = {}
        for number, name, kind, details in events:
            details = json.loads(details or "{}")
            if details.get("code") == TWICE:
                raise Violation(f"{name} ran twice: event {number}, after {fault}")
            if name is None or "to" not in details or kind == "health_changed":
                continue
            if name in last and last[name] != details.get("from"):
                told = [event for event in events if event[1] == name and event[0] <= number][-20:]
                raise Violation(f"{name}: event {number} ({kind}) goes from {details.get('from')}, "
                                f"and the one before ended in {last[name]}, after {fault}",
                                "\n".join(map(str, told)) + "\n" + sh(WORDS_ABOUT.format(name), check=False))
            last[name] = details["to"]

    def check_size(self, fault):
        pid = self.supervisor()
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        now = {"rss": int(status["VmRSS"].split()[0]) // 1024, "threads": int(status["Threads"]),
               "descriptors": len(os.listdir(f"/proc/{pid}/fd"))}
        for what, most in (("rss", 64), ("threads", 40), ("descriptors", 250)):
            self.most[what] = max(self.most[what], now[what])
            if now[what] > most:
                raise Violation(f"{what} of the supervisor is {now[what]} after {fault}; at most {most} is right")

    def forget_history(self):
        self.history_from = 0
        with sqlite3.connect(self.state / "architect.db", timeout=20) as database:
            self.history_from = database.execute("SELECT coalesce(max(id), 0) FROM supervisor_events").fetchone()[0]

    # Faults. Each gives the services that it is meant for.

    def some(self, kinds, most):
        names = [name for name in self.running() if name.split("-")[0] in kinds]
        return self.chance.sample(names, self.chance.randint(1, most))

    def pause(self, most=2.0):
        time.sleep(self.chance.uniform(0, most))

    def kill_supervisor(self):
        kill(self.supervisor(), signal.SIGKILL)

    def kill_supervisor_many_times(self):
        for _ in range(self.chance.randint(2, 8)):
            pid = until("the supervisor is there", self.supervisor)
            self.pause(0.4)
            kill(pid, signal.SIGKILL)

    def freeze_supervisor(self):
        pid = self.supervisor()
        kill(pid, signal.SIGSTOP)
        self.pause(3)
        kill(pid, signal.SIGCONT)

    def hang_supervisor(self):
        """For so long that its watchdog ends it."""
        pid = self.supervisor()
        kill(pid, signal.SIGSTOP)
        until("the watchdog ends it", lambda: self.supervisor() not in (0, pid))

    def restart_supervisor(self):
        sh(f"systemctl restart {UNIT}")

    def kill_services(self):
        touched = self.some(("calm", "limited", "probed", "notify"), 10)
        for name in touched:
            sh(f"systemctl kill -s KILL supervisor-{name}.service", check=False)
        return touched

    def kill_services_while_nobody_watches(self):
        pid = self.supervisor()
        kill(pid, signal.SIGSTOP)
        touched = self.kill_services()
        if self.chance.random() < 0.5:
            kill(pid, signal.SIGKILL)
        else:
            kill(pid, signal.SIGCONT)
        return touched

    def stop_services_with_systemctl(self):
        touched = self.some(("calm", "limited", "probed"), 4)
        for name in touched:
            sh(f"systemctl stop supervisor-{name}.service")
        self.pause()
        for name in touched:
            until(f"{name} is started", lambda: self.order("start", name) == 200)
        return touched

    def restart_services_with_systemctl(self):
        touched = self.some(("calm", "limited"), 4)
        for name in touched:
            sh(f"systemctl restart supervisor-{name}.service")
        return touched

    def take_a_name(self):
        """Somebody else's unit runs under the name of a service that was stopped; sometimes a reload shows it."""
        # No other unit refers to it, so that systemd forgets it.
        name, = touched = self.some(("limited",), 1)
        until(f"{name} is stopped", lambda: self.order("stop", name) == 200)
        until(f"{name} is forgotten", lambda: sh(f"systemctl show -P LoadState supervisor-{name}.service") == "not-found")
        theirs = self.make_stranger(name)
        if self.chance.random() < 0.5:
            sh("systemctl daemon-reload")
        code = self.order("start", name)
        if code == 200 or self.pid_of(name) != theirs:
            raise Violation(f"the start of {name} was answered {code} beside {theirs}, now {self.pid_of(name)}")
        sh(f"systemctl stop supervisor-{name}.service")
        until(f"{name} is started", lambda: self.order("start", name) == 200)
        return touched

    def freeze_services(self):
        touched = self.some(("calm", "limited"), 3)
        for name in touched:
            sh(f"systemctl freeze supervisor-{name}.service", check=False)
        self.pause()
        for name in touched:
            sh(f"systemctl thaw supervisor-{name}.service", check=False)
        return touched

    def orders(self):
        """Orders that contradict each other; the last one says start."""
        touched = self.some(("calm", "limited", "probed", "notify"), 6)
        for _ in range(self.chance.randint(5, 25)):
            name, verb = self.chance.choice(touched), self.chance.choice(("start", "stop", "restart", "reset"))
            self.order(verb if verb == "reset" else f"{verb}?wait=false", name)
        if self.chance.random() < 0.3:
            self.kill_supervisor()
        for name in touched:
            until(f"{name} is started", lambda: self.order("start", name) == 200)
        return touched

    def restart_bus(self):
        sh("systemctl restart dbus.service")

    def hang_bus(self):
        pid = int(sh("systemctl show -P MainPID dbus.service"))
        kill(pid, signal.SIGSTOP)
        touched = []
        try:
            if self.chance.random() < 0.5:
                touched = self.some(("calm", "limited"), 3)
                for name in touched:
                    kill(self.pids[name], signal.SIGKILL)
            self.pause(4)
        finally:
            kill(pid, signal.SIGCONT)
        return touched

    def reload_systemd(self):
        sh("systemctl daemon-reload")

    def reexecute_systemd(self):
        sh("systemctl daemon-reexec")
        until("systemd answers", lambda: sh("systemctl show -P Version", check=False))

    def change_target(self):
        """As `systemctl isolate graphical.target` does; all but the services is wanted by the target."""
        ours = {f"supervisor-{name}.service" for name in self.services}
        units = sh("systemctl list-units --plain --no-legend --state=active,activating | cut -d' ' -f1").split()
        wants = "".join(f"Wants={unit}\n" for unit in units if unit not in ours)
        Path("/run/systemd/system/campaign.target").write_text(f"[Unit]\nAllowIsolate=yes\n{wants}")
        sh("systemctl daemon-reload; systemctl isolate campaign.target")

    def restart_journal(self):
        sh("systemctl restart systemd-journald.service")

    def fill_disk(self):
        sh(f"cat /dev/zero >{self.state}/filler 2>/dev/null", check=False)
        touched = self.kill_services() if self.chance.random() < 0.7 else []
        self.pause(3)
        (self.state / "filler").unlink()
        return touched

    def forbid_writing(self):
        sh(f"mount -o remount,ro {self.state}", check=False)
        touched = self.kill_services()
        self.pause(3)
        sh(f"mount -o remount,rw {self.state}")
        return touched

    def lock_database(self):
        with sqlite3.connect(self.state / "architect.db", timeout=20, isolation_level=None) as database:
            database.execute("BEGIN EXCLUSIVE")
            touched = self.kill_services()
            self.pause(4)
            database.execute("COMMIT")
        return touched

    def spoil_database(self):
        """While nobody is there to see it."""
        self.put_down()
        with open(self.state / "architect.db", "r+b") as file:
            file.write(os.urandom(4096))
        for each in self.state.glob("architect.db-*"):
            each.unlink()
        self.put_up_without_history()

    def delete_database(self):
        self.put_down()
        for each in self.state.glob("architect.db*"):
            each.unlink()
        self.put_up_without_history()

    def delete_database_below_it(self):
        for each in self.state.glob("architect.db*"):
            each.unlink()
        self.pause()
        self.put_down()
        self.put_up_without_history()

    def delete_socket(self):
        (self.runtime / "supervisor.sock").unlink()

    def delete_runtime_folder(self):
        shutil.rmtree(self.runtime)

    def bad_config(self):
        """A file that is broken, away, or no file; a reload changes nothing, and says why."""
        text = self.config.read_bytes()
        way = self.chance.choice(("cut", "half", "folder", "secret", "away"))
        self.config.unlink()
        if way == "cut":
            self.config.write_bytes(b"")
        elif way == "half":
            self.config.write_bytes(text[:self.chance.randrange(len(text))])
        elif way == "folder":
            self.config.mkdir()
        elif way == "secret":
            self.config.symlink_to("/proc/self/mem")
        code, said = self.ask("POST", "reload")
        if self.config.is_dir():
            self.config.rmdir()
        else:
            self.config.unlink(missing_ok=True)
        self.config.write_bytes(text)
        if code != 422 or not said.get("detail"):
            raise Violation(f"a reload with a file that is {way} was answered {code}: {said}")

    def change_config(self):
        """Limits change where they are; another program is a restart of that one."""
        name = self.chance.choice([name for name in self.services if name.startswith("limited")])
        service = self.services[name][0]
        before = service["resource_limits"]["max_memory_mb"]
        limit = self.chance.choice([limit for limit in range(64, 129) if limit != before])
        service["resource_limits"] = {"max_memory_mb": limit}
        touched = []
        if self.chance.random() < 0.5:
            service["environment"] = {"TURN": str(self.chance.random())}
            touched = [name]
        self.write_config()
        code, said = self.ask("POST", "reload")
        if code != 200 or said["restarted" if touched else "updated_live"][0]["id"] != name:
            raise Violation(f"the reload was answered {code}: {said}")
        return touched

    def press_host(self):
        burners = [subprocess.Popen(["/bin/sh", "-c", "while :; do :; done"]) for _ in range(8)]
        hog = subprocess.Popen([sys.executable, "-c", "x = bytearray(1 << 29); import time; time.sleep(60)"])
        try:
            touched = self.kill_services()
            self.pause(4)
        finally:
            for each in [*burners, hog]:
                each.kill()
                each.wait()
        return touched

    def starve_supervisor(self):
        """It may open no further file for a while."""
        pid = self.supervisor()
        sh(f"prlimit --pid {pid} --nofile=4:4096")
        touched = self.kill_services()
        self.pause(3)
        sh(f"prlimit --pid {pid} --nofile=4096:4096", check=False)
        return touched

    def take_memory(self):
        """The kernel ends the supervisor for want of it, and each one that is started, until there is enough again."""
        def restarts():
            return int(sh(f"systemctl show -P NRestarts {UNIT}"))
        sh(f"systemctl set-property --runtime {UNIT} MemoryMax=2M")
        self.kill_supervisor()
        enough = restarts() + self.chance.randint(2, 5)
        try:
            until("the kernel ends it as it starts", lambda: restarts() >= enough)
        finally:
            sh(f"systemctl set-property --runtime {UNIT} MemoryMax=infinity")

    def set_clock(self, difference):
        new = self.clock.with_suffix(".new")
        new.write_text(f"{difference}\n")
        new.rename(self.clock)

    def step_clock(self):
        touched = self.kill_services()
        for _ in range(self.chance.randint(1, 3)):
            self.set_clock(self.chance.choice(("-1d", "+1d", "-10m", "+90", "+0")))
            self.pause()
        return touched

    def deny_threads(self):
        """No thread and no process more for the supervisor; what it has goes on."""
        sh(f"systemctl set-property --runtime {UNIT} TasksMax=1")
        touched = self.kill_services()
        self.pause(3)
        sh(f"systemctl set-property --runtime {UNIT} TasksMax=infinity")
        return touched

    # The course of it.

    def put_down(self):
        sh(f"systemctl stop {UNIT}")

    def put_up_without_history(self):
        sh(f"systemctl start {UNIT}")
        until("the supervisor answers", self.answers)
        self.forget_history()

    def run(self, steps, only):
        faults = [fault for fault in FAULTS if only is None or fault.__name__ in only]
        self.begin()
        for step in range(1, steps + 1):
            fault = self.chance.choice(faults)
            name = fault.__name__.replace("_", " ")
            begun = time.monotonic()
            print(f"{step:5} {name}: ", end="", flush=True)
            touched = fault(self) or []
            self.check(f"step {step}, {name}", set(touched))
            print(f"{len(touched)} touched, all well after {time.monotonic() - begun:.1f} s", flush=True)


FAULTS = [
    Campaign.kill_supervisor, Campaign.kill_supervisor_many_times, Campaign.freeze_supervisor,
    Campaign.hang_supervisor, Campaign.restart_supervisor, Campaign.kill_services,
    Campaign.kill_services_while_nobody_watches, Campaign.stop_services_with_systemctl,
    Campaign.restart_services_with_systemctl, Campaign.take_a_name, Campaign.freeze_services, Campaign.orders,
    Campaign.restart_bus, Campaign.hang_bus, Campaign.reload_systemd, Campaign.reexecute_systemd,
    Campaign.change_target, Campaign.restart_journal,
    Campaign.fill_disk, Campaign.forbid_writing, Campaign.lock_database, Campaign.spoil_database,
    Campaign.delete_database, Campaign.delete_database_below_it, Campaign.delete_socket,
    Campaign.delete_runtime_folder, Campaign.bad_config, Campaign.change_config, Campaign.press_host,
    Campaign.starve_supervisor, Campaign.deny_threads, Campaign.take_memory, Campaign.step_clock,
]


def main():
    words = argparse.ArgumentParser()
    words.add_argument("--seed", type=int, required=True)
    words.add_argument("--steps", type=int, required=True)
    words.add_argument("--only", action="append", choices=[fault.__name__ for fault in FAULTS],
                       help="this fault alone, or these")
    words.add_argument("program")
    given = words.parse_args()
    print(f"seed {given.seed}, {given.steps} steps", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    campaign = Campaign(folder, given.program, given.seed)
    try:
        campaign.run(given.steps, given.only)
    except Violation as violation:
        last = sh(LAST_WORDS, check=False)
        sys.exit(f"VIOLATION, seed {given.seed}: {violation}\n{violation.evidence}\n{last}")
    finally:
        campaign.end()
        shutil.rmtree(folder)
    print(f"all well; most of the supervisor: {campaign.most}")


if __name__ == "__main__":
    main()
