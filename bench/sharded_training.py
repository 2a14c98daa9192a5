"""Do two processes with divided weights (FSDP2) train what one process trains, and do they resume exactly?

    python bench/sharded_training.py [--systems timesformer smolvlm2 …] [--methods full lora] [--steps 20]
        [--resume 1] [--out bench/results/sharded_training.json]

Tiny networks of popnb train on simulated clips by `popnb.train`: in one process, and in two on the processor (gloo), started
by `torch.distributed.run`, with sharding=full; without dropout, mirroring and muting, for which each process draws its own
random numbers. Written are the largest difference of the training losses over the first
steps, and of the predictions of the two run folders, both read by one process. The resume: two processes are killed (-9) when
half of the steps are done and start again with resume=True; losses, weights and predictions are compared bit by bit with an
uninterrupted run of two processes. Results of several calls are joined in one file.
"""
import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from popnb.core import file_sha256, write_json
from popnb.data.table import as_table
from popnb.features.store import Cache
from popnb.models.predictor import load
from popnb.simulation.dataset import SMALL, simulate

CASES = {"timesformer": dict(flip=False), "videomae": dict(flip=False), "smolvlm2": {}, "qwen2.5-vl": {},
    "videollama2": dict(mute=0., loss="mse")}


def job(folder, cases, epochs, sharding, resume):
    "Train the cases, one after another, in this process of a launcher"
    import torch
    from popnb.runs.train import train
    torch.set_num_threads(1)
    torch.nn.functional.dropout = lambda x, *args, **kwargs: x
    for system,method in cases:
        training = dict(epochs=epochs, batch_size=16, log_every=1, precision="fp32", save_every=2, sharding=sharding, patience=None)
        run = train(system, folder/"table.parquet", folder/f"{system}-{method}-{sharding}{resume}", preset="tiny", store=folder/"store",
            overwrite=not resume, resume=bool(resume), n_boot=0, training=training, method=method, workers=1, **CASES[system])
        if run and run.model.net.training: raise SystemExit("the network was left in training mode")


def start(folder, cases, epochs, sharding, resume=""):
    "Start a job in one process or two"
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"] if sharding == "full" else []
    env = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "POPNB_PROGRESS": "0", "HF_HUB_OFFLINE": "1"}
    line = [sys.executable, *launch, __file__, "--job", folder, json.dumps(cases), epochs, sharding, resume]
    return subprocess.Popen([str(o) for o in line], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True)


def finish(process):
    "Seconds of a job; stops with its messages if it failed"
    began,(_,errors) = time.perf_counter(),process.communicate()
    if process.returncode: raise SystemExit(errors[-3000:])
    return time.perf_counter()-began


def losses(run): return pd.read_csv(run/"log.csv")["train_loss"].to_numpy(float)
def predictions(run): return pd.read_csv(run/"predictions.csv")["prediction"].to_numpy(float)


def predicted_here(run, folder):
    "Predictions of a run folder that is read by this process"
    table,ids = as_table(folder/"table.parquet"),pd.read_csv(run/"predictions.csv")["video_id"]
    model = load(run)
    model.store,model.workers = Cache(folder/"store"),1
    return model.predict(table.set_index("video_id").loc[ids].reset_index())["prediction"].to_numpy(float)


def compare(folder, cases, epochs, steps):
    "One process against two"
    one = finish(start(folder, cases, epochs, "none"))
    two = finish(start(folder, cases, epochs, "full"))
    rows = []
    for system,method in cases:
        a,b = (folder/f"{system}-{method}-{k}" for k in ("none", "full"))
        u,v = losses(a)[:steps],losses(b)[:steps]
        rows.append(dict(system=system, method=method, steps=int(min(len(u), len(v))), loss_difference=float(np.abs(u-v).max()),
            first_loss=float(u[0]), last_loss=float(u[-1]), prediction_difference=float(np.abs(predictions(a)-predictions(b)).max()),
            read_by_one_process=float(np.abs(predicted_here(b, folder)-predictions(b)).max())))
        print(rows[-1], flush=True)
    return rows,dict(one_process_s=round(one, 1), two_processes_s=round(two, 1))


def interrupt(folder, case, epochs, at):
    "Kill two processes when a step is saved, start them again, and compare with an uninterrupted run"
    run = folder/f"{case[0]}-{case[1]}-full"
    again = run.with_name(run.name+"again")
    process = start(folder, [case], epochs, "full", "again")
    while process.poll() is None and not any(int(p.name[5:]) >= at for p in again.with_name(again.name+".partial").glob("engine/step-*")):
        time.sleep(.02)
    ended = process.poll() is not None
    os.killpg(process.pid, signal.SIGKILL)
    for line in Path("/proc").glob("[0-9]*/cmdline"):            # workers of the launcher have sessions of their own
        try:
            if str(folder) in line.read_text(): os.kill(int(line.parent.name), signal.SIGKILL)
        except OSError: pass
    process.communicate()
    if ended: raise SystemExit("the training ended before it could be killed")
    files = sorted(p.name for p in max(again.with_name(again.name+".partial").glob("engine/step-*")).iterdir())
    finish(start(folder, [case], epochs, "full", "again"))
    weights = [sorted(file_sha256(p) for p in r.glob("model/**/*.safetensors")) for r in (run, again)]
    return dict(system=case[0], method=case[1], killed_after_step=at, files=files, losses_equal=bool(np.array_equal(losses(run), losses(again))),
        weights_equal=bool(weights[0] and weights[0] == weights[1]), predictions_equal=bool(np.array_equal(predictions(run), predictions(again))))


def merged(old, rows, killed, seconds):
    "The results of earlier calls with those of this one in place of the same trainings"
    key = lambda r: (r["system"], r["method"])
    new = {k: {key(r): r for r in [*old.get(k, []), *found]} for k,found in (("rows", rows), ("resume", killed))}
    out = {k: [v[n] for n in sorted(v)] for k,v in new.items()}
    return out | dict(seconds_of_last_call=seconds, worst_loss_difference=max(r["loss_difference"] for r in out["rows"]))


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--systems", nargs="+", default=list(CASES))
    p.add_argument("--methods", nargs="+", default=["full", "lora"])
    p.add_argument("--steps", type=int, default=20)
    p.add_argument("--resume", type=int, default=1, help="trainings that are killed and resumed")
    p.add_argument("--out", type=Path)
    p.add_argument("--job", nargs=5)
    a = p.parse_args()
    if a.job: return job(Path(a.job[0]), json.loads(a.job[1]), int(a.job[2]), a.job[3], a.job[4])
    scratch = Path(tempfile.mkdtemp(prefix="sharded-"))
    folder = scratch/"sample"
    try:
        simulate(60, folder, seed=1, **SMALL, workers=1)
        cases,epochs = [[s, m] for s in a.systems for m in a.methods],-(-a.steps//3)
        rows,seconds = compare(folder, cases, epochs, a.steps)
        killed = [interrupt(folder, c, epochs, a.steps//2) for c in cases[:a.resume]]
        for k in killed: print(k, flush=True)
    finally: shutil.rmtree(scratch, ignore_errors=True)
    if a.out: write_json(a.out, merged(json.loads(a.out.read_text()) if a.out.exists() else {}, rows, killed, seconds))
    worst = max(r["loss_difference"] for r in rows)
    exact = sum(k["losses_equal"] and k["weights_equal"] and k["predictions_equal"] for k in killed)
    print(f"{sum(r['loss_difference'] < 1e-4 for r in rows)} of {len(rows)} trainings within 1e-4 (worst {worst:.1e}); {exact} of {len(killed)} resumed exactly")


if __name__ == "__main__": main()
