"""Do two commits compute the same predictions, to the last bit?

    python bench/same_predictions.py make FOLDER                 train every system, store runs and predictions
    python bench/same_predictions.py check FOLDER OTHER_FOLDER   compare the predictions of two folders
    python bench/same_predictions.py load FOLDER                 load the runs and predict; compare with the stored

Every system is trained on the simulated table with the tiny preset, a fixed seed, on the CPU, in float32. PYTHONPATH
selects the package of a commit. The script also works with the module names from before the packages became folders.
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

# system -> (label, training options)
CASES = {
    "tabular": ("log-views", {}),
    "clip-lgbm": ("log-views", {}),
    "smtpd": ("views-per-day", dict(epochs=2)),
    "r2plus1d": ("log-views", dict(epochs=1)),
    "timesformer": ("extremes", dict(epochs=1)),
    "videomae": ("log-views", dict(epochs=1)),
    "smolvlm2": ("ecr", dict(epochs=1)),
    "qwen2.5-vl": ("ecr", dict(epochs=1)),
    "videollama2": ("ecr", dict(epochs=1)),
}


def simulated_table(folder, n=80):
    "The simulated table, the same for every commit"
    try: from popnb.simulation.dataset import simulate
    except ImportError: from popnb.data.sample import make_sample as simulate
    return simulate(n, folder/"world", seed=3).table


def predict(run, table, store):
    "Predictions of a saved run for the whole table, in the order of the ids"
    import popnb
    try: from popnb.runs.train import open_store
    except ImportError: from popnb.run import open_store
    model = popnb.load(run)
    model.store,model.workers = open_store(store),1
    return model.predict(table).sort_values("video_id", ignore_index=True)


def make(folder):
    "Train every system and an ensemble of two, and store their predictions"
    import popnb
    import torch
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    table,store = simulated_table(folder),folder/"store"
    common = dict(store=store, seed=5, workers=1, overwrite=True)
    for name,(label,training) in CASES.items():
        start = time.perf_counter()
        options = {"label_options": {"days": 5}} if label == "views-per-day" else {}
        popnb.train(name, table, folder/name, label=label, preset="tiny", training=training, **common, **options)
        predict(folder/name, table, store).to_parquet(folder/f"{name}.parquet")
        print(f"{name}: {time.perf_counter()-start:.0f} s", flush=True)
    try: from popnb.runs.ensemble import train_ensemble
    except ImportError: from popnb.ensemble_runs import train_ensemble
    members = [folder/"tabular", folder/"r2plus1d"]
    train_ensemble(folder/"world"/"table.parquet", folder/"ensemble", members, **common)
    predict(folder/"ensemble", table, store).to_parquet(folder/"ensemble.parquet")


def column_difference(a, b):
    "Largest difference of a numeric column, or the number of rows that differ"
    if pd.api.types.is_numeric_dtype(a): return float(np.nanmax(np.abs(a-b)))
    return int((a.astype(str) != b.astype(str)).sum())


def differences(a, b):
    "Columns that are not equal to the last bit, with their differences"
    if list(a) != list(b) or len(a) != len(b): return {"columns": [list(a), list(b)]}
    return {c: column_difference(a[c], b[c]) for c in a if not a[c].equals(b[c])}


def report(name, found):
    "Print the differences of one system; return them by name if there are any"
    print(f"{name}: {found or 'equal to the last bit'}", flush=True)
    return {name: found} if found else {}


def check(one, other):
    "Compare the stored predictions of two folders"
    bad = {}
    for p in sorted(one.glob("*.parquet")):
        exists = (other/p.name).exists()
        found = differences(pd.read_parquet(p), pd.read_parquet(other/p.name)) if exists else {"missing": True}
        bad |= report(p.stem, found)
    return bad


def load(folder):
    "Load the runs of a folder and compare their predictions with the stored ones"
    path = folder/"world"/"table.parquet"
    try: from popnb.data.table import read_table
    except ImportError: table = pd.read_parquet(path)
    else: table = read_table(path)
    bad = {}
    for p in sorted(folder.glob("*.parquet")):
        found = differences(pd.read_parquet(p), predict(folder/p.stem, table, folder/"store"))
        bad |= report(p.stem, found)
    return bad


if __name__ == "__main__":
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("command", choices=("make", "check", "load"))
    ap.add_argument("folders", nargs="+", type=Path)
    a = ap.parse_args()
    folders = [f.absolute() for f in a.folders]
    bad = {"make": make, "check": check, "load": load}[a.command](*folders)
    if bad: sys.exit(json.dumps(bad, indent=1))
