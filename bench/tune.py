"""Search over options: what it gains over the default on real tables, and `kill -9` at random moments of a search.

    python bench/tune.py [TABLE ...] [--trials 20] [--inner 0 3] [--outer 5] [--label NAME] [--seed 0] [--out FILE]
    python bench/tune.py --kill [--rounds 12] [--seed 0] [--out FILE]

For each table (a file of `popnb import`) and each number of inner folds (0: validation rows), `tabular` is tuned and
also trained with its default options, on the same rows of each outer fold. The predictions of the test rows of all
outer folds are pooled; written is the difference of each metric with a paired interval (creators resampled, where
there are any). Tables of more than 5,000 rows get one outer fold.

With `--kill`, searches on a simulated table are killed at random moments and started again until they end. A failure:
other trials, another best run or other test scores than those of a search that nobody killed, or a message."""
import argparse, json, os, random, shutil, signal, tempfile, time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
import numpy as np
import pandas as pd

from popnb.core import write_json
from popnb.data.table import read_table
from popnb.metrics.bootstrap import paired_all
from popnb.runs.train import train
from popnb.runs.tune import tune
from popnb.simulation.dataset import simulate

METRICS = ("srocc", "rmse", "mae")


def test_rows(run):
    "Predictions of the test rows of a run"
    f = pd.read_csv(run/"predictions.csv", dtype={"video_id": str, "author": str})
    return f[(f["part"] == "test") & f["truth"].notna()].reset_index(drop=True)


def compared(default, tuned):
    "Differences tuned - default on the pooled test rows"
    a,b = (pd.concat(o, ignore_index=True) for o in (default, tuned))
    assert (a["video_id"] == b["video_id"]).all() and np.allclose(a["truth"], b["truth"])
    groups = a["author"].to_numpy(object) if "author" in a and a["author"].notna().all() else None
    found = paired_all(a["truth"].to_numpy(), b["prediction"].to_numpy(), [a["prediction"].to_numpy()], list(METRICS),
        groups, 2000)[0]
    keep = {"a": "tuned", "b": "default", "difference": "difference", "low": "low", "high": "high", "better": "better"}
    return {m: {w: round(e[k], 5) if isinstance(e[k], float) else {"a": "tuned", "b": "default"}.get(e[k], e[k])
        for k,w in keep.items()} for m,e in found.items()}


def gain(path, trials, inner, outer, label, seed, work):
    "What tuning gains on a table"
    table = read_table(path)
    folds,options = range(outer if len(table) <= 5000 else 1),dict(encoders=None, store=work/"store", seed=seed, **label)
    default,tuned,seconds,best = [],{k: [] for k in inner},{k: 0. for k in inner},{k: [] for k in inner}
    for fold in folds:
        same = options | dict(split="kfold", split_options={"folds": outer, "fold": fold} | by_of(table))
        default.append(test_rows(train("tabular", table, work/f"default_{fold}", n_boot=0, **same).folder))
        for k in inner:
            found = tune("tabular", table, work/f"tuned_{k}_{fold}", trials=trials, folds=k, **same)
            tuned[k].append(test_rows(found.run))
            seconds[k] += float(found.trials["seconds"].sum())
            best[k].append(found.best)
            print(path.stem, k, fold, found.sentence(), flush=True)
    n = sum(map(len, default))
    return {k: dict(rows=len(table), test_rows=n, outer=len(folds), seconds=round(seconds[k]), best=best[k],
        metrics=compared(default, tuned[k])) for k in inner}


def by_of(table):
    from popnb.data.splits import default_groups
    by = default_groups(table)[0]
    return {"by": by} if by else {}


def gains(a):
    result = {}
    for path in a.tables:
        work = Path(tempfile.mkdtemp(prefix="popnb-tune-", dir=a.work))
        column = read_table(path)
        label = {} if "views" in column else dict(label="column", label_options=dict(column=a.column, scale="log1p"))
        result[path.stem] = gain(path, a.trials, a.inner, a.outer, label, a.seed, work)
        shutil.rmtree(work)
        for k,r in result[path.stem].items():
            text = ", ".join(f"{m} {e['difference']:+.4f} ({e['low']:+.4f} to {e['high']:+.4f}; {e['better']})" for m,e in r["metrics"].items())
            print(f"{path.stem}, inner folds {k}: {r['test_rows']} test rows, {r['seconds']} s: {text}", flush=True)
        if a.out: write_json(a.out, dict(trials=a.trials, seed=a.seed, tables=result))
    return result


def start(table, out, store, trials):
    pid = os.fork()
    if pid: return pid
    code = 1
    try:
        tune("tabular", table, out, trials=trials, members=1, rounds=60, encoders=None, store=store)
        code = 0
    except BaseException as e: print(f"{type(e).__name__}: {e}", flush=True)
    os._exit(code)


def left(out):
    "What is compared of a search"
    f = pd.read_csv(out/"trials.csv").drop(columns=["seconds", "elapsed"])
    about = json.loads((out/"tune.json").read_text())["result"]
    about.pop("seconds")
    files = sorted(p for p in (out/"best"/"model").iterdir()) + [out/"best"/"predictions.csv"]
    return f.to_csv(), about, {p.name: p.read_bytes() for p in files}, sorted(p.name for p in out.iterdir())


def kills(a):
    rng,work = random.Random(a.seed),Path(tempfile.mkdtemp(prefix="popnb-tune-", dir=a.work))
    table = simulate(300, media=False, seed=3, weights={"text": 1, "creator": 1, "noise": .5}).table
    store,t = work/"store",time.time()
    tune("tabular", table, work/"warm", trials=1, members=1, rounds=60, encoders=None, store=store)
    t = time.time()
    os.waitpid(start(table, work/"whole", store, a.trials), 0)
    seconds,whole = time.time()-t,left(work/"whole")
    result = dict(rounds=0, kills=0, trials_there=[], in_best=0, partial_lines=0, failures=[], seconds=round(seconds, 2))
    for i in range(a.rounds):
        out,killed = work/f"round_{i}",0
        while True:
            pid,end = start(table, out, store, a.trials),time.time() + rng.uniform(.05, 1)*seconds/(1+killed)
            status = None
            while status is None:
                done,code = os.waitpid(pid, os.WNOHANG)
                if done: status = os.waitstatus_to_exitcode(code)
                elif killed < 3 and time.time() > end:
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
                    status = -9
                else: time.sleep(.002)
            if status == -9:
                killed += 1
                result["kills"] += 1
                j = out/"journal.log"
                data = j.read_bytes() if j.exists() else b""
                result["partial_lines"] += bool(data) and not data.endswith(b"\n")
                result["trials_there"].append(data.count(b'"op_code":6'))
                result["in_best"] += any(p.name.startswith(".best") or p.name == "best" for p in out.iterdir()) if out.exists() else 0
                continue
            if status: result["failures"].append(f"round {i}: exit {status}")
            break
        if left(out) != whole: result["failures"].append(f"round {i}: other results")
        result["rounds"] += 1
        shutil.rmtree(out)
    shutil.rmtree(work)
    if a.out: write_json(a.out, result)
    print(f"{result['kills']} kills in {result['rounds']} rounds, {result['in_best']} within the training of the best run, "
        f"{result['partial_lines']} half-written lines, {len(result['failures'])} failures {result['failures'][:3]}")


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("tables", nargs="*", type=Path)
    p.add_argument("--kill", action="store_true")
    p.add_argument("--rounds", type=int, default=12)
    p.add_argument("--trials", type=int, default=20)
    p.add_argument("--inner", type=int, nargs="+", default=[0, 3])
    p.add_argument("--outer", type=int, default=5)
    p.add_argument("--column", default="day_7", help="target of a table without views")
    p.add_argument("--seed", type=int, default=42)
    p.add_argument("--work", type=Path, default=None, help="folder of temporary files")
    p.add_argument("--out", type=Path, default=None)
    a = p.parse_args()
    kills(a) if a.kill else gains(a)
