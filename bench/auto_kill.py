"""Is the run of `train auto` the same if it is killed at random moments and resumed?

    python bench/auto_kill.py [--kills 20] [--rows 300] [--quality balanced]

Simulated titles and creators, a budget that no step exceeds. One call is left alone. Another is ended by kill -9 at random
moments, twenty times, and called again each time; after each kill it is noted whether the run folder holds a run that predicts.
At the end predictions, weights and chosen steps of both runs are compared. Results go to bench/results/auto_kill.json.
"""
import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

from popnb.core import read_json, write_json
from popnb.models.predictor import load
from popnb.models.run_files import run_files
from popnb.simulation.dataset import simulate


def call(d, name, quality):
    "The command, as a process"
    args = [sys.executable, "-m", "popnb.cli.main", "train", "auto", "--data", d/"table.parquet", "--out", d/name, "--quality", quality,
        "--budget", "10h", "--store", d/f"store-{name}", "--option", "systems=tabular", "--option", "rounds=200"]
    return subprocess.Popen(list(map(str, args)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"POPNB_PROGRESS": "0", "OMP_NUM_THREADS": "1"}, start_new_session=True)


def usable(run, rows):
    "Whether a folder holds a run that predicts"
    if not (run/"config.json").exists(): return False
    return bool(load(run).predict(rows)["prediction"].notna().all())


def same(a, b):
    "Whether two runs have the same predictions, scores, models and steps"
    def model(r): return {n: (r/n).read_bytes() for n in run_files(r) if n.endswith((".safetensors", ".txt"))}
    def steps(r): return pd.read_csv(r/"steps.csv").drop(columns="seconds")
    return {"predictions": (a/"predictions.csv").read_bytes() == (b/"predictions.csv").read_bytes(),
        "models": model(a) == model(b), "steps": steps(a).equals(steps(b)),
        "scores": read_json(a/"metrics.json") == read_json(b/"metrics.json")}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--quality", default="balanced")
    parser.add_argument("--share", type=float, default=1/12, help="longest wait for a kill, as a share of the time of the whole call")
    parser.add_argument("--seed", type=int, default=0)
    a = parser.parse_args()
    rng = random.Random(a.seed)
    with tempfile.TemporaryDirectory() as tmp:
        d = Path(tmp)
        weights = dict.fromkeys(["picture", "motion", "moment", "sound"], 0) | {"text": 1, "creator": 1, "noise": .7}
        table = simulate(a.rows, media=False, seed=5, weights=weights).table
        table.to_parquet(d/"table.parquet")
        t = time.time()
        p = call(d, "whole", a.quality)
        err = p.communicate()[1]
        if p.returncode: raise SystemExit(err)
        seconds = time.time()-t
        kills,runs_there,ended = 0,0,False
        while kills < a.kills and not ended:
            p = call(d, "killed", a.quality)
            wait = rng.uniform(3, 3+a.share*seconds)
            try:
                err = p.communicate(timeout=wait)[1]
                if p.returncode: raise SystemExit(err)
                ended = True
            except subprocess.TimeoutExpired:
                os.killpg(p.pid, signal.SIGKILL)
                p.communicate()
                kills += 1
                runs_there += usable(d/"killed", table[:3])
                ended = (d/"killed"/"auto.json").exists() and not (d/"killed.auto").exists()     # killed after its last step
        if not ended:
            p = call(d, "killed", a.quality)
            err = p.communicate()[1]
            if p.returncode: raise SystemExit(err)
        found = {"quality": a.quality, "rows": a.rows, "seconds_alone": round(seconds, 1), "kills": kills,
            "kills_that_left_a_run": runs_there, "same": same(d/"whole", d/"killed")}
        print(found)
        write_json(Path(__file__).parent/"results"/"auto_kill.json", found)


if __name__ == "__main__": main()
