"""How fast are the presets for wide dense tables, and what accuracy do they cost?

    python bench/boost.py [--rows 10000] [--columns 1536] [--trees 100] [--rounds 3] [--seeds 2] [--threads 1]
                          [--out bench/results/boost.json]

The features are two blocks of columns with the covariance of picture and title embeddings: strong directions that both
blocks share, strong directions of one block, and noise in every column. Half of the label's variance is noise. Three
simulations differ in where the signal is:

  strong directions    in the directions of largest variance, linear and non-linear
  single columns       in twelve columns of ordinary variance
  pairs of columns     in products of such columns, so that no single column correlates with the label

`lightgbm` is LGBMRegressor with its defaults: 100 trees, learning rate .1, 31 leaves, all columns, 255 bins. The other
ways, `popnb.models.tabular.wide_embeddings.PRESETS`, have the same trees, leaves and learning rate. Their time includes
fitting axes and selecting columns, binning, training and the prediction of 10,000 test rows. The first seed of the
first simulation is timed in alternating rounds (A B C A B C ...) in one process, the others once, in wall time and in
processor time, which a busy machine disturbs less. Medians, their ratios with a bootstrap interval, and every single
time go into the JSON, with Spearman for every simulation and seed and the paired interval of its difference to
`lightgbm`.
"""
import argparse
import os
import platform
import statistics
import sys
import time
from pathlib import Path

import numpy as np

from timing import load, processor, versions
from popnb.core import write_json
from popnb.metrics.bootstrap import paired
from popnb.models.tabular.wide_embeddings import PRESETS, Wide

SIMULATIONS = ("strong directions", "single columns", "pairs of columns")
WAYS = ("lightgbm", "fraction", "pca", "picked")
TEST_ROWS = 10_000


def embedding_block(rng, common, columns, shared, own):
    "A block `(n, columns)` of embedding-like columns, and its sixteen strongest directions"
    Z = np.hstack([common, rng.normal(size=(len(common), own))])
    sd = rng.permutation(np.arange(1, shared+own+1))**-.5
    signal = .8*(Z*sd) @ rng.normal(size=(shared+own, columns)) / np.sqrt((sd**2).sum())
    return signal + .6*rng.normal(size=(len(common), columns)),Z[:, np.argsort(-sd)[:16]]


def simulate(kind, seed, n, d, shared=32, own=48):
    "Columns `(n, d)` float32 and labels `(n,)`"
    rng = np.random.default_rng([seed, SIMULATIONS.index(kind)])
    common = rng.normal(size=(n, shared))
    blocks,directions = zip(*(embedding_block(rng, common, d//2, shared, own) for _ in range(2)))
    X,Z = np.hstack(blocks),np.hstack(directions)
    at = rng.choice(d, 12, replace=False)
    if kind == "strong directions":
        s = Z @ rng.normal(size=Z.shape[1]) + 2*np.abs(Z[:, 0]) + 2*Z[:, 1]*Z[:, 17]
    elif kind == "single columns":
        s = X[:, at] @ rng.choice([-1, 1], 12) + np.abs(X[:, at[0]])
    else:
        s = (X[:, at[:4]]*X[:, at[4:8]]).sum(1)
    return X.astype(np.float32),(s-s.mean())/s.std() + rng.normal(size=n)


def attempt(way, X, y, V, trees, threads):
    "Train one way on `X`, `y` and predict `V`: wall seconds, processor seconds, predictions"
    import lightgbm as lgb
    start,cpu = time.perf_counter(),time.process_time()
    params = {"objective": "regression", "learning_rate": .1, "verbose": -1, "seed": 0, "num_threads": threads}
    if way != "lightgbm":
        params |= {"deterministic": True, "force_col_wise": True} | PRESETS[way]
        half = X.shape[1]//2
        def blocks(A): return A[:, :half],A[:, half:]
        wide = [Wide(way).fit(b, y) for b in blocks(X)]
        def transform(A): return np.hstack([w.transform(b) for w,b in zip(wide, blocks(A))])
        X,V = transform(X),transform(V)
    predictions = lgb.train(params, lgb.Dataset(X, y), trees).predict(V)
    return time.perf_counter()-start, time.process_time()-cpu, predictions


def ratio(a, b, rng, n_boot=2000):
    "Median of `a` over median of `b`, with a bootstrap interval of 95 % over rounds"
    at = rng.integers(len(a), size=(n_boot, len(a)))
    resampled = np.median(np.array(a)[at], 1)/np.median(np.array(b)[at], 1)
    low,high = (float(np.percentile(resampled, q)) for q in (2.5, 97.5))
    return dict(ratio=statistics.median(a)/statistics.median(b), low=low, high=high)


def compare(kind, seed, a, rng):
    "Time and score every way on one simulated table"
    X,y = simulate(kind, seed, a.rows+TEST_ROWS, a.columns)
    X,V = X[:a.rows],X[a.rows:]
    y,y_test = y[:a.rows],y[a.rows:]
    wall,cpu,preds = {w: [] for w in a.ways},{w: [] for w in a.ways},{}
    for _ in range(a.rounds if seed == 0 and kind == SIMULATIONS[0] else 1):
        for w in a.ways:
            t,c,preds[w] = attempt(w, X, y, V, a.trees, a.threads)
            wall[w].append(t)
            cpu[w].append(c)
    first,out = a.ways[0],{}
    for w in a.ways:
        d = paired(y_test, preds[w], preds[first], "srocc", n_boot=500)
        out[w] = o = dict(
            seconds=wall[w], median_s=statistics.median(wall[w]), faster=ratio(wall[first], wall[w], rng),
            cpu_seconds=cpu[w], faster_cpu=ratio(cpu[first], cpu[w], rng),
            spearman=d["a"], difference=d["difference"], low=d["low"], high=d["high"])
        print(f"{kind:18} seed {seed}  {w:10}{o['median_s']:8.2f} s  {o['faster']['ratio']:6.1f} x"
              f"  processor {o['faster_cpu']['ratio']:6.1f} x   Spearman {d['a']:.4f}"
              f"  ({d['difference']:+.4f}, {d['low']:+.4f} to {d['high']:+.4f})", flush=True)
    return dict(seed=seed, ways=out)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rows", type=int, default=10_000, help="training rows")
    p.add_argument("--columns", type=int, default=1536, help="columns of both blocks together")
    p.add_argument("--trees", type=int, default=100)
    p.add_argument("--rounds", type=int, default=3, help="repetitions of the first seed of the first simulation")
    p.add_argument("--seeds", type=int, default=2, help="tables of the first two simulations; the third has one")
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--ways", nargs="*", default=WAYS, help="the first one is the reference")
    p.add_argument("--out", type=Path, default=Path(__file__).parent/"results"/"boost.json", help="JSON file")
    a = p.parse_args()
    settings = {k: getattr(a, k) for k in ("rows", "columns", "trees", "rounds", "seeds", "threads")}
    result = dict(
        machine=dict(platform=platform.platform(), processor=processor(), cpus=os.cpu_count(), load=load()),
        versions=versions(("popnb", "numpy", "lightgbm", "scikit-learn")), settings=settings, worlds={})
    rng = np.random.default_rng(0)
    for kind in SIMULATIONS:
        seeds = 1 if kind == "pairs of columns" else a.seeds
        result["worlds"][kind] = [compare(kind, seed, a, rng) for seed in range(seeds)]
    write_json(a.out, result)
    print(f"\n{a.out}")


if __name__ == "__main__": sys.exit(main())
