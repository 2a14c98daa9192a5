"""Ledger of forecasts: `kill -9` at random moments of a writer, many writers at once, and the alarm for drift.

    python bench/forecasts.py [--rounds 30] [--writers 4] [--seed 0] [--out FILE]

Each round forks a writer of forecasts (batches of 1 to 9) into a new ledger and kills it at a random moment; rounds
go on until so many kills fell between its first and its last batch. It announces each batch after `log_forecasts` has
returned. Then the same forecasts are written again by a process that nobody kills. A failure: a forecast that was
announced and is lost, a part of a batch, a forecast that is there twice or out of order, a ledger that cannot be
read. Afterwards several writers add to one ledger, with some forecasts in common. The alarm gets 200 normal errors
(standard deviation 1) and then 200 with a change of the outcomes, 400 series a change (a shift of log 2: views that
double; a wider spread), and 2,000 series of 400 without a change."""
import argparse, json, multiprocessing, os, random, tempfile, time
from pathlib import Path

import numpy as np

from popnb.core import write_json
from popnb.runs.forecast_scores import drift_alarm
from popnb.runs.forecasts import log_forecasts, read_ledger


def write(run, ledger, batches, done=None):
    "Log batches of names, and announce each"
    for b in batches:
        log_forecasts(ledger, run, [{"video": v, "label": "log-views", "prediction": 1.} for v in b])
        if done is not None: os.write(done, f"{len(b)}\n".encode())


def start(*args):
    "A forked writer"
    p = multiprocessing.get_context("fork").Process(target=write, args=args)
    p.start()
    return p


def kill_one(run, ledger, batches, seconds):
    "What one killed writer left: `(announced, found before, found after it was run again)`"
    read,done = os.pipe()
    p = start(run, ledger, batches, done)
    os.close(done)
    time.sleep(seconds)
    p.kill()
    p.join()
    with open(read) as f: announced = sum(map(int, f.read().split()))
    found = list(read_ledger(ledger)["video"]) if ledger.is_file() else []
    start(run, ledger, batches).join()
    return announced, found, list(read_ledger(ledger)["video"])


def check_round(names, batches, announced, found, after):
    "What is wrong after a round, as sentences"
    ends = [0, *(sum(map(len, batches[:i+1])) for i in range(len(batches)))]
    at = ends.index(announced)
    wrong = []
    if found != names[:len(found)]: wrong.append("doubled or out of order before the second run")
    if len(found) < announced: wrong.append(f"{announced-len(found)} announced forecasts lost")
    if len(found) not in ends[at:at+2]: wrong.append("part of a batch")
    if after != names: wrong.append("lost or doubled after the second run")
    return wrong


def alarms(seed, shift, series, spread=1., n=400, change=200):
    "Index of the alarm in each series, `None` without one"
    rng,late = np.random.default_rng(seed),np.arange(n) >= change
    return [drift_alarm(rng.normal(size=n)*np.where(late, spread, 1)-shift*late, seed=i)["at"] for i in range(series)]


def delays(seed, shift, spread):
    "What the alarm does after a change"
    at = alarms(seed, shift, 400, spread)
    after = sorted(a-200 for a in at if a is not None and a >= 200)
    return {"shift": round(shift, 3), "spread": spread, "series": len(at), "found_within_200": len(after),
        "before_the_change": sum(a is not None and a < 200 for a in at),
        "delay_median": float(np.median(after)) if after else None, "delay_longest": after[-1] if after else None}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rounds", type=int, default=30)
    p.add_argument("--writers", type=int, default=4)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--out", type=Path)
    a = p.parse_args()
    rng,failures,within,logged,i = random.Random(a.seed),[],0,0,0
    with tempfile.TemporaryDirectory() as work:
        run = Path(work)
        (run/"config.json").write_text("{}")
        names = [f"v{i}" for i in range(200)]
        batches,left = [],list(names)
        while left: batches,left = [*batches, left[:(k := rng.randint(1, 9))]],left[k:]
        began = time.monotonic()
        start(run, run/"undisturbed", batches).join()
        whole = time.monotonic() - began
        while within < a.rounds and i < 10*a.rounds:
            i += 1
            announced,found,after = kill_one(run, run/f"ledger-{i}", batches, rng.uniform(0, whole))
            within += 0 < len(found) < len(names)
            logged += len(found)
            failures += [f"round {i}: {w}" for w in check_round(names, batches, announced, found, after)]
        sets = [[[f"{'common' if j < 20 else w}-{j}"] for j in range(100)] for w in range(a.writers)]
        writers = [start(run, run/"many", s) for s in sets]
        for w in writers: w.join()
        wanted,many = {v for s in sets for b in s for v in b},list(read_ledger(run/"many")["video"])
        if sorted(many) != sorted(wanted): failures.append("several writers: lost or doubled")
    result = {"kills": i, "kills_within_the_work": within, "forecasts_before_kills": logged, "writers": a.writers,
        "forecasts_of_writers": len(many), "failures": failures, "seconds_undisturbed": round(whole, 2)}
    result["alarms_of_2000_series_without_change"] = sum(m is not None for m in alarms(a.seed, 0., 2000))
    result["alarms_of_20_series_without_change"] = sum(m is not None for m in alarms(a.seed+1, 0., 20))
    changes = ((.5, 1.), (float(np.log(2)), 1.), (1., 1.), (2., 1.), (0., 2.))
    result["drift"] = [delays(a.seed+2, *c) for c in changes]
    if a.out: write_json(a.out, result)
    print(json.dumps(result))


if __name__ == "__main__": main()
