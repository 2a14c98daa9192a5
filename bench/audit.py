"""Does the audit find planted faults, is it silent on sound tables, and how long does it take?

    python bench/audit.py [--rounds 10] [--rows 2000] [--small 50] [--large 20000] [--seed 0]
                          [--out bench/results/audit.json]

Each fault of `popnb.audit.planted` is planted into simulated tables, one at a time; it is found if the audit reports the
finding of its name. Faults in thumbnails and clips are planted into 24 simulated clips. Then sound tables are audited:
each warning or blocker is a false alarm; `--small` further sound tables have 120 and 300 rows. Last, one table of `--large`
rows without media is audited, and the time is written.
"""
import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from popnb.audit.audit import audit, quick_audit
from popnb.audit.planted import PLANTED_FAULTS, MEDIA_FAULTS, plant
from popnb.core import write_json
from popnb.simulation.dataset import SMALL, simulate


def failures(a):
    "Checks that raised an error"
    return [k for k,v in a.skipped.items() if v.startswith("failed")]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rounds", type=int, default=10, help="simulated tables")
    p.add_argument("--rows", type=int, default=2000, help="rows of a table")
    p.add_argument("--small", type=int, default=50, help="further sound tables, half of 120 and half of 300 rows")
    p.add_argument("--large", type=int, default=20_000, help="rows of the table whose audit is timed")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--out", type=Path, default=Path(__file__).parent/"results"/"audit.json", help="JSON file")
    a = p.parse_args()
    found,beside,alarms,failed = Counter(),Counter(),[],[]
    for seed in range(a.seed, a.seed+a.rounds):
        clean = simulate(a.rows, media=False, seed=seed).table
        clips = simulate(24, Path(tempfile.mkdtemp()), seed=seed, **SMALL | {"size": (320, 180)}).table
        sound = audit(clean)
        alarms.append([f.name for f in sound.alarms])
        failed += failures(sound)
        for name in PLANTED_FAULTS:
            media = name in MEDIA_FAULTS
            o = audit(plant(name, clips if media else clean, seed), media=media)
            found[name] += name in o
            beside.update(f"{name} > {f.name}" for f in o.alarms if f.name != name and f.name != "few_rows")
            failed += failures(o)
        tried = len(PLANTED_FAULTS)*(seed-a.seed+1)
        print(f"seed {seed}: found {sum(found.values())} of {tried}, false alarms {alarms[-1]}", flush=True)
    small = []
    for i in range(a.small):
        o = audit(simulate((120, 300)[i%2], media=False, seed=a.seed+1000+i).table)
        small.append([f.name for f in o.alarms])
        failed += failures(o)
    print(f"{sum(map(bool, small))} of {a.small} small sound tables with a false alarm", flush=True)
    large = simulate(a.large, media=False, seed=a.seed).table
    start = time.time()
    of = audit(large)
    seconds,start = time.time()-start,time.process_time()
    lines = quick_audit(large, "views")
    quick = time.process_time()-start
    result = dict(rounds=a.rounds, rows=a.rows, seed=a.seed, faults=len(PLANTED_FAULTS),
        found={k: found[k]/a.rounds for k in PLANTED_FAULTS},
        other_alarms={k: n/a.rounds for k,n in beside.most_common()},
        false_alarms_per_sound_table=sum(map(len, alarms))/a.rounds, most_false_alarms=max(map(len, alarms)),
        false_alarms=dict(Counter(sum(alarms, []))),
        small=dict(tables=a.small, with_alarm=sum(map(bool, small)), alarms=dict(Counter(sum(small, [])))),
        failed_checks=dict(Counter(failed)),
        large=dict(rows=a.large, seconds=round(seconds, 2), alarms=[f.name for f in of.alarms],
                   quick_processor_seconds=round(quick, 2), quick_lines=len(lines)))
    write_json(a.out, result)
    every = sum(n == a.rounds for n in found.values())
    print(f"{every} of {len(PLANTED_FAULTS)} faults found in all {a.rounds} tables;"
        f" {result['false_alarms_per_sound_table']:.2f} false alarms a sound table,"
        f" at most {result['most_false_alarms']};"
        f" {sum(map(bool, small))} of {a.small} small sound tables with one;"
        f" {a.large:,} rows in {seconds:.1f} s, quick checks"
        f" {quick:.2f} s of processor time; {len(failed)} checks failed; {a.out}")


if __name__ == "__main__": sys.exit(main())
