"""What do nearest titles, one kernel on all vectors and an average over folds add to `tabular` on real titles?

    python bench/bagged_titles.py TABLE [--source shorts] [--seeds 0 1 2 3 4] [--folds 8] [--members 5] [--store FOLDER]
                                  [--work FOLDER] [--out bench/results/bagged_titles.json]

For each seed near-duplicate titles are kept in one part (80/10/10). `tabular` by default is compared with the mean of `--members` of the
models that `popnb train tabular --folds 8 --option joint=true neighbours=auto` trains: each without one fold of the training and
validation rows, chosen on the next one. Written are paired differences of Spearman with 95 % intervals, for each seed and for all test rows
together, with the seeds' copies of a video resampled as one. Predictions stay in `--work`, so that a second call goes on.
"""
import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from timing import load, processor, versions
from popnb.core import write_json
from popnb.data.labels import make_label
from popnb.data.sources import read_source
from popnb.data.splits import make_split
from popnb.features.store import Store
from popnb.metrics.bootstrap import paired
from popnb.models.ensemble.bagged import fold_splits
from popnb.models.ensemble.blending import creator_time_folds
from popnb.models.tabular.system import Tabular


def predicted(train, valid, test, seed, store, path, **options):
    "Predictions of the test rows by one model, kept in a file"
    if path.exists(): return np.load(path)
    model = Tabular(seed=seed, encoders="auto", **options)
    model.store = store
    model.fit(train.reset_index(drop=True), valid.reset_index(drop=True), make_label("log-views"))
    p = model.predict(test)["prediction"].to_numpy()
    np.save(path, p)
    return p


def one_seed(table, seed, a):
    "Truth, ids, predictions of `tabular` and of each fold"
    split = make_split(table, "group", seed=seed, by=["near_title"])
    train,valid,test = (table[split.rows(table, p)].reset_index(drop=True) for p in ("train", "valid", "test"))
    rest,work,store = pd.concat([train, valid], ignore_index=True),Path(a.work),Store(a.store)
    work.mkdir(parents=True, exist_ok=True)
    base = predicted(train, valid, test, seed, store, work/f"{seed}_base.npy")
    fold,_ = creator_time_folds(rest, a.folds, seed)
    members = []
    for k,s in enumerate(fold_splits(rest, fold)[:a.members]):
        rows = [rest[rest["video_id"].isin(s.ids[p])] for p in ("train", "valid")]
        members.append(predicted(*rows, test, seed, store, work/f"{seed}_{k}.npy", joint=True, neighbours="auto"))
        y = make_label("log-views").fit(train).transform(test)
        print(seed, k, *(round(float(spearmanr(y, p)[0]), 4) for p in (base, members[-1], np.mean(members, 0))), flush=True)
    return y, test["video_id"].to_numpy(), base, np.mean(members, 0), [float(spearmanr(y, m)[0]) for m in members]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("table")
    p.add_argument("--source", default="shorts")
    p.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    p.add_argument("--folds", type=int, default=8)
    p.add_argument("--members", type=int, default=5)
    p.add_argument("--store", default="bagged_store")
    p.add_argument("--work", default="bagged_titles")
    p.add_argument("--out", default=str(Path(__file__).parent/"results"/"bagged_titles.json"))
    a = p.parse_args()
    table,_ = read_source(a.source, a.table)
    keys,found,out = ("a", "b", "difference", "low", "high"),[],[]
    for seed in a.seeds:
        y,ids,base,mean,alone = one_seed(table, seed, a)
        found.append((y, ids, base, mean))
        d = paired(y, mean, base, "srocc")
        out.append({"seed": seed, "alone": alone} | {k: d[k] for k in keys})
        y,ids,base,mean = (np.concatenate(c) for c in zip(*found))
        d = paired(y, mean, base, "srocc", ids)
        together = {k: d[k] for k in keys}
        write_json(Path(a.out), {"machine": {"processor": processor(), "load": load()}, "versions": versions(["popnb", "numpy", "lightgbm"]),
            "folds": a.folds, "members": a.members, "seeds": out, "all": together})
        print(out[-1], together, flush=True)


if __name__ == "__main__": main()
