"""Two and four processes on every shared thing: the feature store, OUT of a training, an output file, the ledger of the quota.

    python bench/campaigns/shared.py [--rounds 200] [--seed 0] [--seconds S] [--out FILE]

Each round starts two or four processes at once on each of the four. Store: they write overlapping records, read those of the
others, delete some and write them again; in the end every record is right. OUT: they train into one folder; one run is there,
whole, and the others say in one sentence why they stopped. File: they write one CSV file that did not exist; one file is
there, of one process. Ledger: they reserve calls until the bucket is empty; its units are never exceeded and all are used."""
import argparse, json, os, random, shutil, sys, tempfile, time, traceback
from collections import Counter
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["POPNB_PROGRESS"] = "0"
import numpy as np
import pandas as pd
from popnb.core import PopnbError, claims, output_path, read_json
from popnb.data.safe_csv import write_sheet
from popnb.features.store import Store
from popnb.models.predictor import load
from popnb.runs.train import train
from popnb.simulation.dataset import simulate
from popnb.youtube.quota import Ledger, QuotaExhausted


def together(n, work, *args):
    "Results of `work(i, *args)` in `n` processes that start at one moment"
    gate,go = os.pipe()
    pids,pipes = [],[]
    for i in range(n):
        r,w = os.pipe()
        pid = os.fork()
        if not pid:
            os.close(go)
            os.read(gate, 1)                              # ends when the parent closes the pipe
            sys.stdout = sys.stderr = open(os.devnull, "w")
            try: out = work(i, *args)
            except PopnbError as e: out = dict(said=str(e))
            except BaseException as e: out = dict(error="".join(traceback.format_exception(e))[-1500:])
            os.write(w, json.dumps(out).encode())
            os._exit(0)
        os.close(w)
        pids.append(pid)
        pipes.append(r)
    os.close(gate)
    os.close(go)
    out = []
    for pid,r in zip(pids, pipes):
        with os.fdopen(r, "rb") as f: text = f.read()
        status = os.waitpid(pid, 0)[1]
        out.append(json.loads(text) if text else dict(error=f"ended with status {status}"))
    return out


def value(k): return dict(x=np.full(50*(k % 40), k % 99, np.int16))


def store_work(i, folder, seed):
    rng,s = random.Random(f"{seed} {i}"),Store(folder)
    for _ in range(12):
        ks = [rng.randrange(60) for _ in range(5)]
        s.put_many({f"{k:03d}": value(k) for k in ks})
        for k in rng.sample(range(60), 5):
            v = s.get(f"{k:03d}")
            if v is not None and not np.array_equal(v["x"], value(k)["x"]): return dict(error=f"record {k} is wrong")
        if rng.random() < .2:
            s.drop([f"{ks[0]:03d}"])
            s.put(f"{ks[0]:03d}", value(ks[0]))
    s.put_many({f"{k:03d}": value(k) for k in range(i % 2, 60, 2)})
    return {}


def store_round(n, work, seed):
    got = together(n, store_work, str(work/"store"), seed)
    with Store(work/"store") as s:
        right = all(np.array_equal(s.get(f"{k:03d}")["x"], value(k)["x"]) for k in range(60))
        return [o for o in got if o] + ([] if right and len(s) == 60 else ["the store is not whole"])


def out_work(i, folder, table):
    train("trivial", table, folder, store=f"{folder}-store{i}", n_boot=0, seed=i)
    return dict(done=i)


def out_round(n, work, seed, table=[]):
    if not table: table.append(simulate(40, media=False, seed=2).table)
    got = together(n, out_work, str(work/"run"), table[0])
    done = [o["done"] for o in got if "done" in o]
    bad = [o for o in got if "done" not in o and "\n" in o.get("said", "\n")]
    seed = read_json(work/"run"/"config.json").get("seed")
    if len(done) != 1 or seed != done[0]: bad.append(f"{len(done)} trainings are ok, the run is that of {seed}: {got}")
    load(work/"run")
    left = [p.name for p in work.iterdir() if p.name.startswith(".run") or p.name == "run.partial"]
    return bad + ([f"left over: {left}"] if left else [])


def file_work(i, path):
    with claims():
        output_path(path, overwrite=False)
        time.sleep(random.Random(i).random()*.01)
        write_sheet(pd.DataFrame({"i": [i]*1000}), path)
    return dict(done=i)


def file_round(n, work, seed):
    got = together(n, file_work, str(work/"a.csv"))
    done,there = [o["done"] for o in got if "done" in o],set(pd.read_csv(work/"a.csv")["i"])
    bad = [o for o in got if "error" in o]
    if len(done) != 1 or there != set(done): bad.append(f"written by {done}, holds {there}")
    left = [p.name for p in work.iterdir() if p.name.startswith(".a.csv")]
    return bad + ([f"left over: {left}"] if left else [])


def ledger_work(i, path):
    ledger,n = Ledger(path, {"search": 97}),0
    try:
        while True:
            ledger.reserve("search.list")
            n += 1
    except QuotaExhausted: return dict(n=n)


def ledger_round(n, work, seed):
    got = together(n, ledger_work, str(work/"ledger.sqlite"))
    used,counted = Ledger(work/"ledger.sqlite", {"search": 97}).used()["search"],sum(o.get("n", 0) for o in got)
    return [o for o in got if "n" not in o] + ([] if used == counted == 97 else [f"{used} units used, {counted} reserved of 97"])


ROUNDS = dict(store=store_round, out=out_round, file=file_round, ledger=ledger_round)


def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    p.add_argument("--rounds", type=int, default=200)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--seconds", type=float, default=float("inf"))
    p.add_argument("--out-rounds", type=int, help="rounds of trainings, which are slow; default: as many")
    p.add_argument("--only", nargs="*", default=list(ROUNDS))
    p.add_argument("--out", type=Path)
    a = p.parse_args(argv)
    start,counts,bad,base = time.time(),Counter(),[],Path(tempfile.mkdtemp())
    for i in range(a.rounds):
        for name in a.only:
            if name == "out" and a.out_rounds is not None and i >= a.out_rounds: continue
            if time.time() - start > a.seconds: break
            work = base/f"{name}{i}"
            work.mkdir()
            try: wrong = ROUNDS[name](2 + i % 2*2, work, [a.seed, i])
            except Exception as e: wrong = ["".join(traceback.format_exception(e))[-1500:]]
            counts[name] += 1
            bad += [dict(round=i, what=name, problem=str(o)[:1500]) for o in wrong]
            shutil.rmtree(work)
    shutil.rmtree(base)
    result = dict(seed=a.seed, rounds=dict(counts), seconds=round(time.time()-start, 1), failures=bad)
    if a.out: a.out.write_text(json.dumps(result, indent=1)+"\n")
    for o in bad[:8]: print(o)
    print("shared: " + ", ".join(f"{k} {n} rounds" for k,n in counts.items()) + f", {len(bad)} failures, {result['seconds']} s")
    return 1 if bad else 0


if __name__ == "__main__": sys.exit(main())
