"""Do two commits compute the same? Train every system (tiny, fixed seed, processor, float32) on the simulated table and keep its predictions.

    python bench/same_predictions.py make FOLDER                 with the package of one commit: runs and predictions into FOLDER
    python bench/same_predictions.py check FOLDER OTHER_FOLDER   predictions of both, compared to the last bit
    python bench/same_predictions.py load FOLDER                 the runs in FOLDER, loaded by this package: do they predict what they predicted?

Select the package with PYTHONPATH. Works with the names before and after the packages were laid out anew.
"""
import argparse
import json
import os
import sys
import time
from pathlib import Path

os.environ |= {"POPNB_PROGRESS": "0", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}

import numpy as np
import pandas as pd

# system -> (label, options, training)
CASES = {
    "tabular": ("log-views", {}, {}),
    "clip-lgbm": ("log-views", {}, {}),
    "smtpd": ("views-per-day", {}, dict(epochs=2)),
    "r2plus1d": ("log-views", {}, dict(epochs=1)),
    "timesformer": ("extremes", {}, dict(epochs=1)),
    "videomae": ("log-views", {}, dict(epochs=1)),
    "smolvlm2": ("ecr", {}, dict(epochs=1)),
    "qwen2.5-vl": ("ecr", {}, dict(epochs=1)),
    "videollama2": ("ecr", {}, dict(epochs=1)),
}

def world(folder, n=80):
    "The simulated table, the same for every commit"
    try: from popnb.simulation.dataset import simulate
    except ImportError: from popnb.data.sample import make_sample as simulate
    return simulate(n, folder/"world", seed=3).table

def frame(preds): return preds.sort_values("video_id", ignore_index=True)

def make(folder):
    import popnb
    import torch
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    table,store = world(folder),folder/"store"
    for name,(label,options,training) in CASES.items():
        start = time.perf_counter()
        extra = {"label_options": {"days": 5}} if label == "views-per-day" else {}
        popnb.train(name, table, folder/name, label=label, preset="tiny", seed=5, store=store, workers=1, training=training, overwrite=True, **extra, **options)
        predict(folder/name, table, store).to_parquet(folder/f"{name}.parquet")
        print(f"{name}: {time.perf_counter()-start:.0f} s", flush=True)
    try: from popnb.runs.ensemble import train_ensemble
    except ImportError: from popnb.ensemble_runs import train_ensemble
    train_ensemble(folder/"world"/"table.parquet", folder/"ensemble", [folder/"tabular", folder/"r2plus1d"], store=store, seed=5, overwrite=True, workers=1)
    predict(folder/"ensemble", table, store).to_parquet(folder/"ensemble.parquet")

def predict(run, table, store):
    "Predictions of a saved run for the whole table"
    import popnb
    try: from popnb.runs.train import open_store
    except ImportError: from popnb.run import open_store
    model = popnb.load(run)
    model.store,model.workers = open_store(store),1
    return frame(model.predict(table))

def differences(a, b):
    "Columns that differ, with the largest difference"
    if list(a) != list(b) or len(a) != len(b): return {"columns": [list(a), list(b)]}
    out = {}
    for c in a:
        if a[c].equals(b[c]): continue
        out[c] = float(np.nanmax(np.abs(a[c]-b[c]))) if pd.api.types.is_numeric_dtype(a[c]) else int((a[c].astype(str) != b[c].astype(str)).sum())
    return out

def check(one, other):
    bad = {}
    for p in sorted(one.glob("*.parquet")):
        d = differences(pd.read_parquet(p), pd.read_parquet(other/p.name)) if (other/p.name).exists() else {"missing": True}
        print(f"{p.stem}: {'equal to the last bit' if not d else d}")
        if d: bad[p.stem] = d
    return bad

def load(folder):
    bad = {}
    table = pd.read_parquet(folder/"world"/"table.parquet")
    try: from popnb.data.table import read_table
    except ImportError: pass
    else: table = read_table(folder/"world"/"table.parquet")
    for p in sorted(folder.glob("*.parquet")):
        d = differences(pd.read_parquet(p), predict(folder/p.stem, table, folder/"store"))
        print(f"{p.stem}: {'equal to the last bit' if not d else d}", flush=True)
        if d: bad[p.stem] = d
    return bad

if __name__ == "__main__":
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("what", choices=("make", "check", "load"))
    ap.add_argument("folders", nargs="+", type=Path)
    o = ap.parse_args()
    folders = [f.absolute() for f in o.folders]
    bad = {"make": make, "check": check, "load": load}[o.what](*folders)
    if bad: sys.exit(json.dumps(bad, indent=1))
