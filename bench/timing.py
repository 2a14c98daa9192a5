"""What the benchmarks share: alternating rounds, tables of medians, facts about the machine, the file of results"""
import os
import platform
import statistics
import time
from importlib.metadata import version
from pathlib import Path


def rounds(ways, n, clock=time.process_time, warm=True):
    "Time each function of `ways` `n` times in alternating rounds, after one warm-up call each; seconds by name"
    if warm:
        for f in ways.values(): f()
    times = {name: [] for name in ways}
    for _ in range(n):
        for name,f in ways.items():
            start = clock()
            f()
            times[name].append(clock() - start)
    return times


def table(title, times):
    "Print and return the median of each way and its ratio to the first way"
    first = statistics.median(next(iter(times.values())))
    print(f"\n{title}", flush=True)
    out = {}
    for name,t in times.items():
        m = statistics.median(t)
        out[name] = dict(seconds=t, median_s=m, this_over_first=m/first, first_over_this=first/m)
        print(f"  {name:34}{1e3*m:12.2f} ms   this / first {m/first:8.3f}", flush=True)
    return out


def versions(packages):
    "Versions of Python and of the packages named"
    return dict(python=platform.python_version()) | {k: version(k) for k in packages}


def processor():
    "Name of the processor"
    try: lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError: return platform.processor()
    return next((o.split(":", 1)[1].strip() for o in lines if o.startswith("model name")), platform.processor())


def load():
    "Load average of the last minute; `None` where the system has none"
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def result_writer(path, packages, **about):
    "Return `write(name, part)`, which stores one part in the JSON file and keeps the parts that it already has"
    from popnb.core import read_json, write_json
    about = dict(python=platform.python_version(), machine=platform.machine(), threads=1) | about
    about |= {k: version(k) for k in packages}
    def write(name, part):
        stored = read_json(path) if Path(path).exists() else {}
        write_json(path, stored | {"about": about, name: part})
    return write
