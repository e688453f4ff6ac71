"""Compares what `supervisorctl import supervisord` makes of files with what supervisord itself reads in them.

    python compare.py SUPERVISORCTL FILE...

Run by the system tests with supervisord from PyPI. Exits with 1 where names, command lines, environments, working
directories or users differ.
"""

import json
import pathlib
import pwd
import re
import shlex
import subprocess
import sys
import warnings

warnings.simplefilter("ignore")
from supervisor.options import ProcessGroupConfig, ServerOptions  # noqa: E402


def theirs(file):
    """What supervisord would run, by name."""
    text = file.read_bytes().decode()
    # It refuses a file without its own section, and checks folders of logs and programs of other kinds.
    text = re.sub(r"(?m)^(\w*logfile|childlogdir)\s*=.*$", "", text)
    text = re.sub(r"(?ms)^\[(eventlistener|fcgi-program).*?(?=^\[(program|group)|\Z)", "", text)
    if "[supervisord]" not in text:
        text += "\n[supervisord]\n"
    # In its place, for %(here)s.
    beside = file.with_suffix(".compared")
    beside.write_bytes(text.encode())
    try:
        options = ServerOptions()
        options.realize(args=["-n", "-c", str(beside)], doc="")
    finally:
        beside.unlink()
    found = {}
    for group in options.process_group_configs:
        if type(group) is not ProcessGroupConfig:
            continue
        for process in group.process_configs:
            found[process.name] = {
                "argv": shlex.split(process.command),
                "environment": process.environment or {},
                "directory": process.directory,
                "user": process.uid,
                "priority": process.priority,
                "enabled": process.autostart,
                "timeout": process.stopwaitsecs,
            }
    return found


def ours(program, file):
    """What was made of it, by id."""
    command = [program, "--json", "import", "supervisord", str(file)]
    answer = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    found = {}
    for name, service in answer["config"]["services"].items():
        user = service.get("user")
        found[name] = {
            "argv": [service["command"], *service.get("args", [])],
            "environment": service.get("environment", {}),
            "directory": service.get("working_directory"),
            "user": pwd.getpwnam(user).pw_uid if user else None,
            "priority": service["priority"],
            "enabled": service.get("enabled", True),
            "timeout": service["graceful_shutdown"]["timeout"],
        }
    return found


def main():
    program, *files = sys.argv[1:]
    differences, services = 0, 0
    for file in map(pathlib.Path, files):
        expected, made = theirs(file), ours(program, file)
        services += len(expected)
        if expected != made:
            differences += 1
            print(f"{file}:\n  supervisord {expected}\n  imported    {made}")
    print(f"{len(files)} files, {services} services, {differences} files with differences")
    sys.exit(bool(differences))


main()
