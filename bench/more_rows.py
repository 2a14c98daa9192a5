"""Would more videos help? The score of `tabular` on the same test rows, by the number of training rows.

    python bench/more_rows.py TABLE [--source shorts] [--shares .125 .25 .5 1] [--seeds 0 1 2] [--store FOLDER]
                              [--out bench/results/more_rows.json]

TABLE is a file that `popnb import SOURCE` reads. For each seed near-duplicate titles are kept in one part (80/10/10); training is
on a random share of whole title groups, validation and test rows stay the same. Written are mean Spearman and R² for each share,
the slope for each doubling of the rows by least squares over the last three shares, and how correlated the errors are of models
that learn from two halves of the training rows: what a blend of them could still gain. Aggregates only.
"""
import argparse
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from timing import load, processor, versions
from popnb.core import write_json
from popnb.data.groups import groups_of
from popnb.data.labels import make_label
from popnb.data.sources import read_source
from popnb.data.splits import make_split
from popnb.features.store import Store
from popnb.models.tabular.system import Tabular


def parts_of(rows, shares, seed):
    "Rows of each share, whole groups of near-duplicate titles, each share within the next"
    group = groups_of(rows, "near_title")
    names,at = np.unique(np.asarray(group), return_inverse=True)
    place = np.random.default_rng(seed).permutation(len(names))[at]
    order = np.argsort(place, kind="stable")
    return {s: rows.iloc[np.sort(order[:round(s*len(rows))])].reset_index(drop=True) for s in shares}, order


def fitted(train, valid, test, seed, store):
    "Predictions of the test rows"
    model = Tabular(seed=seed, encoders="auto")
    model.store = store
    model.fit(train, valid, make_label("log-views"))
    return model.predict(test)["prediction"].to_numpy(), model.label.transform(test)


def one_seed(table, shares, seed, store):
    "Scores of each share, and of two halves"
    split = make_split(table, "group", seed=seed, by=["near_title"])
    train,valid,test = (table[split.rows(table, p)].reset_index(drop=True) for p in ("train", "valid", "test"))
    parts,order = parts_of(train, shares, seed)
    score = lambda p, y: {"srocc": float(spearmanr(p, y)[0]), "r2": float(1-np.square(y-p).sum()/np.square(y-y.mean()).sum())}
    found,half = [],{}
    for s,rows in parts.items():
        p,y = fitted(rows, valid, test, seed, store)
        if s == .5: half["a"] = p
        found.append({"seed": seed, "share": s, "rows": len(rows)} | score(p, y))
        print(found[-1], flush=True)
    if not half: return found,None
    other = train.iloc[np.sort(order[len(order)//2:])].reset_index(drop=True)
    b,_ = fitted(other, valid, test, seed, store)
    return found,{"seed": seed, "errors_correlate": float(np.corrcoef(y-half["a"], y-b)[0, 1]), "first": score(half["a"], y), "second": score(b, y),
        "mean": score((half["a"]+b)/2, y)}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("table")
    p.add_argument("--source", default="shorts")
    p.add_argument("--shares", nargs="+", type=float, default=[.125, .25, .5, 1])
    p.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    p.add_argument("--store", default="more_rows_store")
    p.add_argument("--out", default=str(Path(__file__).parent/"results"/"more_rows.json"))
    a = p.parse_args()
    table,_ = read_source(a.source, a.table)
    pairs = [one_seed(table, a.shares, s, Store(a.store)) for s in a.seeds]
    rows = [r for found,_ in pairs for r in found]
    mean = [{"share": s} | {k: float(np.mean([r[k] for r in rows if r["share"] == s])) for k in ("rows", "srocc", "r2")} for s in a.shares]
    last = mean[-3:]
    slope = {k: float(np.polyfit(np.log2([m["rows"] for m in last]), [m[k] for m in last], 1)[0]) for k in ("srocc", "r2")}
    write_json(Path(a.out), {"machine": {"processor": processor(), "load": load()}, "versions": versions(["popnb", "numpy", "lightgbm"]),
        "mean": mean, "for_each_doubling": slope, "each": rows, "halves": [h for _,h in pairs if h]})
    print(mean, slope)


if __name__ == "__main__": main()
