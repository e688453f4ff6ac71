"""How each peer is configured, started, asked and ended. Defaults are left alone, except where a delay before a restart
or a longest wait would decide the figure instead of the program."""

import json
import os
import re
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
UNITS = Path("/run/systemd/system")


@dataclass
class Service:
    name: str
    command: list
    # Of 127.0.0.1, to be probed once a second.
    port: int | None


def run(*command, well=(0,), **more):
    done = subprocess.run(command, capture_output=True, text=True, **more)
    if done.returncode not in well:
        raise RuntimeError(f"{' '.join(map(str, command))}: {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


# What shows the state may say by its exit code that something does not run.
SHOWN = (0, 3)


def first_version(text):
    return re.search(r"\d+(\.\d+)+|\d+", text)[0]


class Peer:
    """One supervisor, in a folder of its own. `control()` is its command, and `shows` are the words that make it show
    all services."""

    probes = False
    child = None
    env = None
    shows = ("status",)

    def __init__(self, folder, services):
        self.folder, self.services = folder, services
        self.configure()

    def spawn(self, *command, **more):
        """In the foreground, so that its process is known."""
        log = open(self.folder / "log", "ab")
        self.child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, **more)

    def pids(self):
        """Its processes; none where that is PID 1."""
        return [self.child.pid]

    def show(self):
        run(*self.control(), *self.shows, env=self.env, well=SHOWN)

    def stop(self, name):
        run(*self.control(), "stop", name, env=self.env)

    def failed(self):
        """Whether it ended by itself, and not well."""
        return self.child is not None and self.child.poll() not in (None, 0)

    def finish(self, number):
        """Asks it to end, and waits."""
        self.child.send_signal(number)
        try:
            self.child.wait(timeout=120)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()


class ProcessSupervisor(Peer):
    name, probes = "process-supervisor", True
    program, command = ROOT / "target/release/process-supervisor", ROOT / "target/release/supervisorctl"

    @classmethod
    def installed(cls):
        return cls.program.exists()

    @classmethod
    def version(cls):
        return first_version(run(cls.program, "--version"))

    def configure(self):
        services = {}
        for service in self.services:
            one = {"command": service.command[0], "args": service.command[1:],
                   "restart_policy": {"retry_delay": 0, "max_retries": -1}}
            if service.port:
                one["health_check"] = {"type": "tcp", "port": service.port, "interval": 1}
                one["port"] = 0
            services[service.name] = one
        (self.folder / "config.json").write_text(json.dumps({"supervisor": {"listen": []}, "services": services}))

    def start(self):
        # As its unit sets it.
        env = dict(os.environ, MALLOC_ARENA_MAX="1", STATE_DIRECTORY=f"{self.folder}/state",
                   RUNTIME_DIRECTORY=f"{self.folder}/runtime")
        self.spawn(self.program, "--config", self.folder / "config.json", env=env)

    def control(self):
        return self.command, "--socket", self.folder / "runtime/supervisor.sock"

    def end(self):
        self.finish(signal.SIGINT)


class Systemd(Peer):
    name, shows = "systemd", ("list-units", "bench-*")

    @classmethod
    def installed(cls):
        return True

    @classmethod
    def version(cls):
        return first_version(run("systemctl", "--version"))

    def configure(self):
        self.units = [f"{service.name}.service" for service in self.services]
        for unit, service in zip(self.units, self.services):
            text = f"[Unit]\nStartLimitIntervalSec=0\n[Service]\nExecStart={' '.join(service.command)}\nRestart=always\nRestartSec=0\n"
            (UNITS / unit).write_text(text)

    def start(self):
        run("systemctl", "daemon-reload")
        run("systemctl", "start", *self.units)

    def pids(self):
        return []

    def control(self):
        return ("systemctl",)

    def end(self):
        run("systemctl", "stop", *self.units)
        for unit in self.units:
            (UNITS / unit).unlink()
        run("systemctl", "daemon-reload")


class Supervisord(Peer):
    name = "supervisord"
    programs = ROOT / "target/python/supervisord/bin"

    @classmethod
    def installed(cls):
        return (cls.programs / "supervisord").exists()

    @classmethod
    def version(cls):
        return first_version(run(cls.programs / "supervisord", "--version"))

    def configure(self):
        folder = self.folder
        text = (f"[unix_http_server]\nfile={folder}/socket\n"
                f"[supervisord]\nuser=root\nminfds=10000\nlogfile={folder}/log\npidfile={folder}/pid\nchildlogdir={folder}\n"
                "[rpcinterface:supervisor]\nsupervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n"
                f"[supervisorctl]\nserverurl=unix://{folder}/socket\n")
        for service in self.services:
            text += f"[program:{service.name}]\ncommand={' '.join(service.command)}\nautorestart=true\n"
        (folder / "supervisord.conf").write_text(text)

    def start(self):
        (self.folder / "socket").unlink(missing_ok=True)
        self.spawn(self.programs / "supervisord", "--nodaemon", "-c", self.folder / "supervisord.conf")

    def control(self):
        return self.programs / "supervisorctl", "-c", self.folder / "supervisord.conf"

    def end(self):
        self.finish(signal.SIGTERM)


class Pm2(Peer):
    name, shows = "PM2", ("list",)
    program = ROOT / "benches/peers/node_modules/.bin/pm2"

    @classmethod
    def installed(cls):
        return cls.program.exists() and shutil.which("node") is not None

    @classmethod
    def version(cls):
        return json.loads((ROOT / "benches/peers/node_modules/pm2/package.json").read_text())["version"]

    def configure(self):
        self.env = dict(os.environ, PM2_HOME=str(self.folder / "pm2"), CI="1")
        apps = [{"name": service.name, "script": service.command[0], "args": service.command[1:], "interpreter": "none",
                 "cwd": str(self.folder)} for service in self.services]
        (self.folder / "ecosystem.json").write_text(json.dumps({"apps": apps}))

    def start(self):
        # The command waits for all of them; their reports say when they run.
        self.spawn(self.program, "start", self.folder / "ecosystem.json", env=self.env)

    def pids(self):
        return [int((self.folder / "pm2/pm2.pid").read_text())]

    def control(self):
        return (self.program,)

    def end(self):
        self.child.kill()
        self.child.wait()
        run(self.program, "kill", env=self.env)


class Monit(Peer):
    name, probes, shows = "Monit", True, ("summary",)

    @classmethod
    def installed(cls):
        return shutil.which("monit") is not None

    @classmethod
    def version(cls):
        return first_version(run("monit", "-V"))

    def configure(self):
        # It keeps no children: a service puts itself into the background and leaves a file with its process.
        start, folder = self.folder / "start", self.folder
        start.write_text(f'#!/bin/sh\nname=$1\nshift\nsetsid sh -c \'echo $$ >{folder}/$0.pid; exec "$@"\' "$name" "$@" '
                         f">{folder}/$name.log 2>&1 &\n")
        start.chmod(0o755)
        stop = folder / "stop"
        stop.write_text(f"#!/bin/sh\nkill $(cat {folder}/$1.pid)\n")
        stop.chmod(0o755)
        # Cycles of a second are the shortest that it has.
        text = (f"set daemon 1\nset pidfile {folder}/pid\nset idfile {folder}/id\nset statefile {folder}/statefile\n"
                f"set logfile {folder}/log\nset httpd unixsocket {folder}/socket allow admin:monit\n")
        for service in self.services:
            text += (f"check process {service.name} with pidfile {folder}/{service.name}.pid\n"
                     f"  start program = \"{start} {service.name} {' '.join(service.command)}\"\n"
                     f"  stop program = \"{stop} {service.name}\"\n")
            if service.port:
                text += f"  if failed host 127.0.0.1 port {service.port} for 3 cycles then restart\n"
        self.rc = folder / "monitrc"
        self.rc.write_text(text)
        self.rc.chmod(0o600)

    def start(self):
        self.spawn("monit", "-I", "-c", self.rc)

    def control(self):
        return "monit", "-c", self.rc

    def end(self):
        # Its services are not its children, and go on.
        self.finish(signal.SIGTERM)


ALL = (ProcessSupervisor, Systemd, Supervisord, Pm2, Monit)
