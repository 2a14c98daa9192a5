"""Rounds that take turns, their medians, and the file that they go into: what the benches share"""
import platform
import statistics
import time
from importlib.metadata import version
from pathlib import Path


def rounds(ways, n, clock=time.process_time, warm=True):
    "Seconds of each way, `n` times, taking turns; one warm-up each"
    for f in ways.values() if warm else (): f()
    times = {name: [] for name in ways}
    for _ in range(n):
        for name,f in ways.items():
            start = clock()
            f()
            times[name].append(clock() - start)
    return times


def keeper(path, packages, **about):
    "A function of a name and a part that puts the part into a JSON file, beside those that are in it"
    from popnb.core import read_json, write_json
    about = dict(python=platform.python_version(), machine=platform.machine(), threads=1) | about | {k: version(k) for k in packages}
    return lambda name, part: write_json(path, (read_json(path) if Path(path).exists() else {}) | {"about": about, name: part})


def table(title, times):
    "Medians and their ratios to the first way, printed and returned"
    first = statistics.median(next(iter(times.values())))
    print(f"\n{title}", flush=True)
    out = {}
    for name,t in times.items():
        m = statistics.median(t)
        out[name] = dict(seconds=t, median_s=m, this_over_first=m/first, first_over_this=first/m)
        print(f"  {name:34}{1e3*m:12.2f} ms   this / first {m/first:8.3f}", flush=True)
    return out
