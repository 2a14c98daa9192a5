"""Is a bagged run better than the run that is trained once, and is the mean of both?

    POPNB_REAL_DATA=FOLDER python bench/bag_or_not.py [--tables tiktok daily22] [--seeds 0 1 2] [--folds 5 10]

`Tabular(encoders=None, neighbours="auto", features="auto")` predicts log views of the test rows: trained once on training rows;
by the mean of the models of K folds of training and validation rows, each fold held out by one model and validating another; and
by the mean of both. Random, creator and time splits of `bench/score.py`. bench/results/bag_or_not.json gets Spearman correlations
on the test rows, means over the seeds.
"""
import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from score import split_of, table_of

from popnb.core import write_json
from popnb.data.labels import make_label
from popnb.metrics.metrics import srocc
from popnb.models.ensemble.bagged import fold_splits
from popnb.models.tabular.system import Tabular
from popnb.runs.bagged import fold_rows


def cell(table, split, seed, folds):
    "Spearman of each way for one table, split and seed"
    train,valid,test = (table[split.rows(table, p)].reset_index(drop=True) for p in ("train", "valid", "test"))
    label,rest = make_label("log-views").fit(train),pd.concat([train, valid], ignore_index=True)
    y = label.transform(test)
    def predicted(train, valid):
        model = Tabular(seed=seed, encoders=None, neighbours="auto", features="auto").fit(train, valid, label)
        return model.predict(test)["prediction"].to_numpy()
    def rho(p): return float(srocc(y, p))
    once = predicted(train, valid)
    out = {"once": rho(once)}
    for k in folds:
        parts = [[rest[rest["video_id"].isin(s.ids[p])].reset_index(drop=True) for p in ("train", "valid")]
            for s in fold_splits(rest, fold_rows(table, split, k, seed)[0])]
        bag = np.mean([predicted(*p) for p in parts], 0)
        out |= {f"{k} folds": rho(bag), f"once and {k} folds": rho((once+bag)/2)}
    return out


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--tables", nargs="+", default=["tiktok", "daily22"])
    p.add_argument("--splits", nargs="+", default=["random", "group", "time"])
    p.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    p.add_argument("--folds", nargs="+", type=int, default=[5, 10])
    a = p.parse_args()
    results = {}
    for t in a.tables:
        table = table_of(t)
        for s in a.splits:
            seeds = a.seeds if s != "time" else a.seeds[:1]
            found = [cell(table, split_of(table, s, k), k, a.folds) for k in seeds]
            results[f"{t} {s}"] = {"seeds": seeds, "mean": {k: float(np.mean([f[k] for f in found])) for k in found[0]},
                "each": {k: [f[k] for f in found] for k in found[0]}}
            print(t, s, {k: round(v, 4) for k,v in results[f"{t} {s}"]["mean"].items()}, flush=True)
            write_json(Path(__file__).parent/"results"/"bag_or_not.json", results)


if __name__ == "__main__": main()
