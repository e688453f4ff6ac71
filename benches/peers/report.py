"""Figures, the table of them, and the plots."""

import platform
import statistics
import sys
from datetime import date
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts"))
from plot import plot  # noqa: E402


def many(count):
    return "1 service" if count == 1 else f"{count:,} services"


class Figure:
    """One row: what each peer took, in which unit, and the most that ours may take: a number, or a number of times a
    peer's."""

    def __init__(self, title, unit="", digits=1, most=None, times=None):
        self.title, self.unit, self.digits, self.most, self.times = title, unit, digits, most, times
        self.values, self.words = {}, {}

    @classmethod
    def all(cls, sizes, middle):
        rows = {}
        for size in sizes:
            rows["start", size] = cls(f"from nothing until the last of {size:,} runs", "s", 2)
        for size in sizes:
            rows["memory", size] = cls(f"resident memory with {many(size)}", "MiB", most={1: 10, 100: 12, 500: 20}.get(size))
        for size in sizes:
            rows["manager", size] = cls(f"growth of PID 1 by {many(size)}", "MiB")
        rows["idle"] = cls(f"idle CPU with {middle} services", "%", 3, most=0.1)
        rows["crash"] = cls("crash to the next process", "ms", times=(1.5, "systemd"))
        rows["show"] = cls(f"the command that shows the state of {middle}", "ms")
        rows["probe"] = cls("CPU for a TCP probe", "µs", 0)
        rows["survive"] = cls("same process after SIGKILL of the supervisor and a new one")
        rows["twice"] = cls("run twice then")
        rows["leak"] = cls("a stopped service's process in the background is left")
        return rows

    def add(self, kind, value):
        self.values.setdefault(kind.name, []).append(value)

    def say(self, kind, words):
        self.words[kind.name] = words

    def median(self, name):
        values = self.values.get(name)
        return statistics.median(values) if values else None

    def cell(self, name, base):
        """The median, its spread, and how many times ours it is."""
        if name in self.words:
            return self.words[name]
        middle = self.median(name)
        if middle is None:
            return "–"
        values, digits = self.values[name], self.digits
        spread = f" ({min(values):.{digits}f}–{max(values):.{digits}f})" if len(values) > 1 else ""
        ours = self.median(base)
        told = name != base and ours and round(middle, digits) > 0
        ratio = f", **×{middle / ours:.2g}**" if told else ""
        return f"{middle:.{digits}f} {self.unit}{spread}{ratio}"

    def goal(self, base):
        """What ours may take, and whether it does."""
        ours = self.median(base)
        most, words = self.most, f"at most {self.most} {self.unit}"
        if self.times:
            factor, peer = self.times
            most, words = factor * (self.median(peer) or 0), f"at most {factor} times {peer}'s"
        if most is None or ours is None:
            return ""
        return f"{words}: {'met' if ours <= most else '**missed**'}"


def machine():
    model = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), platform.machine())
    memory = int(Path("/proc/meminfo").read_text().split()[1]) / 1024 / 1024
    cores = len([line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("processor")])
    return f"{model}, {cores} cores, {memory:.0f} GiB, Linux {'.'.join(platform.release().split('.')[:2])}"


def write(file, kinds, figures, own, sizes):
    names = [kind.name for kind in kinds]
    lines = [
        "# Benchmarks",
        "",
        "Written by `make bench`. The same work for each, in turns in one run in a private systemd; medians, with the least "
        "and the most in brackets, and how many times ours the peer's is.",
        "",
        f"{date.today()}, {machine()}. Versions: " + ", ".join(f"{kind.name} {kind.version()}" for kind in kinds) + ".",
        "",
        "| | " + " | ".join(names) + " | goal |",
        "|---" * (len(names) + 2) + "|",
    ]
    for row in figures.values():
        lines.append(f"| {row.title} | " + " | ".join([*(row.cell(name, names[0]) for name in names), row.goal(names[0])]) + " |")
    lines += ["", "![Memory](docs/benchmark-memory.svg) ![Start](docs/benchmark-start.svg)", ""]
    lines += Path(__file__).with_name("notes.md").read_text().splitlines()
    lines += ["", "## Own figures", "", "Against the goals; the peer is named in each line.", "", "```text", own.strip(), "```", ""]
    file.write_text("\n".join(lines))
    for key, title, unit in (("memory", "Resident memory", "MiB"), ("start", "Until the last one runs", "s")):
        series = {name: [(size, figures[key, size].median(name)) for size in sizes] for name in names}
        series = {name: [point for point in points if point[1] is not None] for name, points in series.items()}
        (file.parent / f"docs/benchmark-{key}.svg").write_text(plot(title, unit, "services", series))
