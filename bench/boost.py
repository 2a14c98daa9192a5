"""How fast are the presets for wide dense tables, and what do they cost?

    python bench/boost.py [--rows 10000] [--columns 1536] [--trees 100] [--rounds 3] [--seeds 2] [--threads 1]
                          [--out bench/results/boost.json]

Two blocks of columns that look like the embeddings of pictures and titles: some strong directions that both blocks
share, some of their own, and noise in every column. The label is half noise. Three worlds, by where the signal sits:

  strong directions    in what varies most, straight and bent
  single columns       in twelve columns that vary like all others
  pairs of columns     in products of such columns, which show nothing one by one

`lightgbm` is what LGBMRegressor does by default: 100 trees, learning rate .1, 31 leaves, all columns, 255 bins. The
other ways, `popnb.models.tabular.wide_embeddings.PRESETS`, share trees, leaves and learning rate; their time includes finding axes and
picks, binning, training and the prediction of 10,000 test rows. The first seed of the first world is timed in
alternating rounds (A B C A B C ...) in one process, the rest once, by the clock and by the processor's own time, which
a busy machine disturbs less; medians, their ratios with a bootstrap interval,
and every single time go into the JSON. Spearman is given for every world and seed, with the paired interval of the
difference to `lightgbm`.
"""
import argparse
import os
import platform
import statistics
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

from popnb.core import write_json
from popnb.metrics.bootstrap import paired
from popnb.models.tabular.wide_embeddings import PRESETS, Wide

WORLDS = ("strong directions", "single columns", "pairs of columns")
WAYS = ("lightgbm", "fraction", "pca", "picked")


def world(kind, seed, n, d, shared=32, own=48):
    "Columns `(n, d)` float32 and labels `(n,)`"
    rng = np.random.default_rng([seed, WORLDS.index(kind)])
    common,blocks,directions = rng.normal(size=(n, shared)),[],[]
    for _ in range(2):
        Z = np.hstack([common, rng.normal(size=(n, own))])
        sd = rng.permutation(np.arange(1, shared+own+1))**-.5
        X = .8*(Z*sd) @ rng.normal(size=(shared+own, d//2)) / np.sqrt((sd**2).sum()) + .6*rng.normal(size=(n, d//2))
        blocks.append(X)
        directions.append(Z[:, np.argsort(-sd)[:16]])
    X,Z = np.hstack(blocks),np.hstack(directions)
    at = rng.choice(d, 12, replace=False)
    if kind == "strong directions": s = Z @ rng.normal(size=Z.shape[1]) + 2*np.abs(Z[:, 0]) + 2*Z[:, 1]*Z[:, 17]
    elif kind == "single columns": s = X[:, at] @ rng.choice([-1, 1], 12) + np.abs(X[:, at[0]])
    else: s = (X[:, at[:4]]*X[:, at[4:8]]).sum(1)
    return X.astype(np.float32), (s-s.mean())/s.std() + rng.normal(size=n)


def attempt(way, X, y, V, trees, threads):
    "Seconds, seconds of the processor, and predictions of the test rows"
    import lightgbm as lgb
    start,cpu = time.perf_counter(),time.process_time()
    params = {"objective": "regression", "learning_rate": .1, "verbose": -1, "seed": 0, "num_threads": threads}
    if way != "lightgbm":
        params |= {"deterministic": True, "force_col_wise": True} | PRESETS[way]
        half = X.shape[1]//2
        wide = [Wide(way).fit(b, y) for b in (X[:, :half], X[:, half:])]
        X,V = (np.hstack([w.transform(b) for w,b in zip(wide, (A[:, :half], A[:, half:]))]) for A in (X, V))
    p = lgb.train(params, lgb.Dataset(X, y), trees).predict(V)
    return time.perf_counter()-start, time.process_time()-cpu, p


def ratio(a, b, rng, n_boot=2000):
    "Median of `a` over median of `b`, with an interval over rounds"
    at = rng.integers(len(a), size=(n_boot, len(a)))
    drawn = np.median(np.array(a)[at], 1)/np.median(np.array(b)[at], 1)
    return dict(ratio=statistics.median(a)/statistics.median(b), low=float(np.percentile(drawn, 2.5)), high=float(np.percentile(drawn, 97.5)))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rows", type=int, default=10_000)
    p.add_argument("--columns", type=int, default=1536)
    p.add_argument("--trees", type=int, default=100)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--seeds", type=int, default=2)
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--ways", nargs="*", default=WAYS)
    p.add_argument("--out", type=Path, default=Path(__file__).parent/"results"/"boost.json")
    a = p.parse_args()
    result = dict(
        machine=dict(platform=platform.platform(), processor=_processor(), cpus=os.cpu_count(), load=os.getloadavg()[0] if hasattr(os, "getloadavg") else None),
        versions=dict(python=platform.python_version(), **{o: version(o) for o in ("popnb", "numpy", "lightgbm", "scikit-learn")}),
        settings=dict(rows=a.rows, columns=a.columns, trees=a.trees, rounds=a.rounds, seeds=a.seeds, threads=a.threads), worlds={})
    rng = np.random.default_rng(0)
    for kind in WORLDS:
        cells = result["worlds"][kind] = []
        for seed in range(a.seeds if kind != WORLDS[2] else 1):
            X,y = world(kind, seed, a.rows+10_000, a.columns)
            X,y,V,yv = X[:a.rows],y[:a.rows],X[a.rows:],y[a.rows:]
            times,cpu,preds = {w: [] for w in a.ways},{w: [] for w in a.ways},{}
            for _ in range(a.rounds if seed == 0 and kind == WORLDS[0] else 1):
                for w in a.ways:
                    t,c,preds[w] = attempt(w, X, y, V, a.trees, a.threads)
                    times[w].append(t)
                    cpu[w].append(c)
            first,out = a.ways[0],{}
            for w in a.ways:
                d = paired(yv, preds[w], preds[first], "srocc", n_boot=500)
                out[w] = dict(seconds=times[w], median_s=statistics.median(times[w]), faster=ratio(times[first], times[w], rng), cpu_seconds=cpu[w], faster_cpu=ratio(cpu[first], cpu[w], rng), spearman=d["a"], difference=d["difference"], low=d["low"], high=d["high"])
                print(f"{kind:18} seed {seed}  {w:10}{out[w]['median_s']:8.2f} s  {out[w]['faster']['ratio']:6.1f} x  processor {out[w]['faster_cpu']['ratio']:6.1f} x   Spearman {d['a']:.4f}  ({d['difference']:+.4f}, {d['low']:+.4f} to {d['high']:+.4f})", flush=True)
            cells.append(dict(seed=seed, ways=out))
    write_json(a.out, result)
    print(f"\n{a.out}")


def _processor():
    try: return next(o.split(":", 1)[1].strip() for o in Path("/proc/cpuinfo").read_text().splitlines() if o.startswith("model name"))
    except (OSError, StopIteration): return platform.processor()


if __name__ == "__main__": sys.exit(main())
