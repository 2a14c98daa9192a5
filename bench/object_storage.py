"""Are clips on object storage predicted like local ones, and what becomes of slow, failing, cut and missing objects?

    python bench/object_storage.py [--rows 200] [--batch 50] [--rounds 1] [--out bench/results/object_storage.json]

A tabular run on all inputs predicts simulated clips with thumbnails: as local files, and as objects of an S3 server on this
machine with planted faults. Written are for each fate the rows, their errors by kind, the requests and the seconds; whether
every number and every other text is equal to the last bit; whether the feature stores of both hold the same keys; and the
time with objects over that with files, with filled stores (ABAB, median) and with empty ones.
"""
import argparse
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pandas as pd

from popnb.core import write_json
from popnb.features.store import Store
from popnb.runs.predict_table import predict_table
from popnb.runs.train import train
from popnb.simulation.dataset import simulate
from popnb.simulation.mock_storage import StoreFault, mock_storage

COLUMNS = ("video_path", "thumbnail_path")
FATES = {   # name -> fault of every tenth clip, error of its row
    "clean": (None, None),
    "slow": (lambda: StoreFault("slow", 1, seconds=2), None),
    "busy_twice": (lambda: StoreFault("busy", 2), None),
    "reset_once": (lambda: StoreFault("reset", 1), None),
    "cut_once": (lambda: StoreFault("cut", 1), None),
    "busy": (lambda: StoreFault("busy"), "failed"),
    "cut": (lambda: StoreFault("cut"), "failed"),
    "denied": (lambda: StoreFault("denied"), "denied"),
    "missing": (None, "missing"),
}


def as_objects(storage, table, folder, missing=()):
    "Put the files of a table on the store, some left out; the table with addresses"
    def put(path):
        if not isinstance(path, str): return path
        key = str(Path(path).relative_to(folder))
        if key not in missing and Path(path).exists(): storage.put(key, path)
        return f"s3://{storage.bucket}/{key}"
    return table.assign(**{c: table[c].map(put) for c in COLUMNS})


def predicted(run, table, path, **how):
    "Answers for a table, the counts of the job, and its seconds"
    table.to_parquet(path)
    start,out = time.time(),path.with_suffix(".answers")
    done = predict_table(run, path, out, overwrite=True, **how)
    return pd.read_parquet(out),done,time.time()-start


def keys(folder):
    "Keys of a store"
    with Store(folder, readonly=True) as s: return set(s.keys())


def fate(name, run, table, folder, near, d, how):
    "What becomes of a table whose every tenth clip has a fault"
    fault,error = FATES[name]
    whole = [i for i in range(len(table)) if pd.isna(near["error"][i])]       # some clips of the simulation are damaged
    hit = whole[::10] if name != "clean" else []
    names = [str(Path(table["video_path"][i]).relative_to(folder)) for i in hit]
    with mock_storage() as storage:
        rows = as_objects(storage, table, folder, names if name == "missing" else ())
        storage.faults.update({k: fault() for k in names if fault})
        storage.requests.clear()
        far,done,seconds = predicted(run, rows, d/"far.parquet", store=d/"far", **how)
        requests = storage.requests.total()
    bad = [i for i in hit if error]
    good = [i for i in range(len(table)) if i not in bad]
    kinds = Counter(e.split(": ")[1].split(",")[0] for e in far["error"].dropna())
    planted = [far["error"][i].split(": ")[1].split(",")[0] for i in bad if not pd.isna(far["error"][i])]
    same = [o.iloc[good].drop(columns="error").assign(bad=o["error"].iloc[good].notna()).reset_index(drop=True) for o in (near, far)]
    return dict(rows=done["rows"], errors=dict(kinds), planted=len(hit), as_planted=planted == [error]*len(bad),
        other_rows_equal=same[0].equals(same[1]), requests=requests, seconds=round(seconds, 1))


def paired(run, table, folder, d, how, rounds):
    "Median of the time with objects over that with files, both with filled stores"
    ratios = []
    with mock_storage() as storage:
        rows = as_objects(storage, table, folder)
        for _ in range(rounds):
            near = predicted(run, table, d/"near.parquet", store=d/"near", **how)[2]
            ratios.append(predicted(run, rows, d/"far.parquet", store=d/"far", **how)[2]/near)
    return round(statistics.median(ratios), 3)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rows", type=int, default=200)
    p.add_argument("--batch", type=int, default=50)
    p.add_argument("--rounds", type=int, default=1)
    p.add_argument("--out", type=Path, default=Path(__file__).parent/"results"/"object_storage.json", help="JSON file")
    a = p.parse_args()
    start,how = time.time(),dict(batch=a.batch)
    with tempfile.TemporaryDirectory() as d:
        d = Path(d)
        world = simulate(a.rows, d/"world", seed=0, seconds=(1.5, 2)).table
        table = world.drop(columns=[c for c in world if c.startswith(("day_", "popularity_"))])
        run = train("tabular", world, d/"run", encoders=None, n_boot=0, store=d/"training", members=1, rounds=60).folder
        near,done,empty = predicted(run, table, d/"near.parquet", store=d/"near", **how)
        result = dict(rows=a.rows, batch=a.batch, local=dict(errors=done["errors"], seconds=round(empty, 1)), fates={})
        for name in FATES:
            result["fates"][name] = fate(name, run, table, d/"world", near, d, how)
            print(f"{time.time()-start:.0f} s", name, result["fates"][name], flush=True)
        result["same_keys"] = keys(d/"near") == keys(d/"far")
        result["empty_stores_time_over_local"] = round(result["fates"]["clean"]["seconds"]/empty, 3)
        result["filled_stores_time_over_local"] = paired(run, table, d/"world", d, how, a.rounds)
    print(result)
    write_json(a.out, result)
    wrong = [k for k,v in result["fates"].items() if not (v["as_planted"] and v["other_rows_equal"])]
    print(f"{len(FATES)} fates of {a.rows} clips, {len(wrong)} not as planted, same keys: {result['same_keys']}; "
        f"{time.time()-start:.0f} s; {a.out}")
    return int(bool(wrong) or not result["same_keys"])


if __name__ == "__main__": sys.exit(main())
