"""What does Ray cost over one machine, and what survives a lost node or a killed driver?

    python bench/on_ray.py overhead [--clips 200] [--rounds 2]
    python bench/on_ray.py cluster [--clips 40] [--batch 4]

`overhead`: simulated clips through an untrained network of frames, by the same command on this machine and on a Ray that runs
already (ABAB, a fresh feature cache each time); the files are compared byte for byte, with one and with two network actors.
Stated apart are the start of Ray, and a job of one clip, which is the start of command and actors. `cluster`: three raylets on this machine; in the
middle of a job one is ended by kill -9, in other jobs the driver, and the job is resumed on Ray or without it. Results go to
bench/results/on_ray.json.
"""
import argparse
import os
import secrets
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

from popnb.core import read_json, write_json
from popnb.runs.on_ray import predict_on_ray, ray_cluster
from popnb.runs.predict_table import predict_table
from popnb.runs.train import train
from popnb.simulation.dataset import simulate

RAY = {"RAY_agent_register_timeout_ms": "60000", "RAY_local_fs_capacity_threshold": ".99", "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "POPNB_PROGRESS": "0", "OMP_NUM_THREADS": "1"}


def prepared(d, clips, seconds, size):
    "A run and a table of clips; one in twenty files is damaged"
    if (d/"table.parquet").exists(): return d/"run",d/"table.parquet"
    table = simulate(clips, d/"films", seed=1, seconds=seconds, size=size, fps=12).table
    for p in table["video_path"].dropna()[::20]: Path(p).write_bytes(b"no film")
    table.to_parquet(d/"table.parquet")
    small = simulate(40, d/"small", seed=2, seconds=(1.5, 2), size=(64, 48), fps=10).table
    run = train("r2plus1d", small, d/"run", label="ecr", preset="tiny", split="random", n_boot=0, store=d/"first",
        training=dict(epochs=1, precision="fp32"))
    return run.folder,d/"table.parquet"


def command(run, table, out, batch, *more):
    "The command that predicts a table, as a process"
    call = [sys.executable, "-m", "popnb.cli.main", "predict", run, "--data", table, "--out", out, "--batch", batch, "--json",
        "--store", out.parent/f"{out.stem}.store", *more]
    return subprocess.Popen(list(map(str, call)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finished(process):
    "Seconds until a command ends"
    t = time.time()
    text = process.communicate()[0]
    if process.returncode not in (0, 1): raise SystemExit(text)      # 1: files that cannot be read
    return round(time.time()-t, 1)


def overhead(d, clips, rounds, batch):
    "Seconds of the command here and on Ray, and whether the files are the same"
    run,table = prepared(d, clips, (8, 12), (360, 640))
    out = {"clips": clips, "batch": batch, "local_s": [], "ray_s": [], "same_bytes": []}
    cluster = ray_cluster("local", num_cpus=2, object_store_memory=300*2**20)      # until this process ends
    start = time.time()
    address = cluster.__enter__().get_runtime_context().gcs_address
    out["start_of_ray_s"] = round(time.time()-start, 1)
    on_ray = ("--on", "ray", "--ray-address", address, "--ray-decoders", 2, "--ray-actors")
    few = d/"few.parquet"
    pd.read_parquet(table)[1:2].to_parquet(few)
    out["one_clip_s"] = [finished(command(run, few, d/f"few{i}.parquet", batch, *more))
        for i,more in enumerate([(), (*on_ray, 1)])]
    for i in range(rounds):
        for k,more in (("local", ("--workers", 2)), ("ray", (*on_ray, 1))):
            out[f"{k}_s"].append(finished(command(run, table, d/f"{k}{i}.parquet", batch, *more)))
            print(k, out[f"{k}_s"], flush=True)
        out["same_bytes"].append((d/f"local{i}.parquet").read_bytes() == (d/f"ray{i}.parquet").read_bytes())
    out["ratio"] = round(statistics.median(out["ray_s"])/statistics.median(out["local_s"]), 3)
    finished(command(run, table, d/"two.parquet", batch, *on_ray, 2))
    out["same_bytes_two_actors"] = (d/"two.parquet").read_bytes() == (d/"local0.parquet").read_bytes()
    return out


def wait_for_parts(out, n, process, seconds=300):
    "Wait until a job has written so many parts"
    folder,end = out.with_name(out.name+".parts"),time.time()+seconds
    while len(list(folder.glob("*.parquet"))) < n:
        if process.poll() is not None or time.time() > end: raise SystemExit(f"The job ended early: {process.communicate()[0]}")
        time.sleep(.1)


def actors_of(raylet):
    "Names of the actors that run on a node"
    out = []
    for p in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((p/"stat").read_text().rpartition(")")[2].split()[1])
            name = (p/"cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
        except OSError: continue
        if parent == raylet and name.startswith("ray::Map"): out.append(name.partition(".")[0])
    return sorted(out)


def _on(cluster): return "--on", "ray", "--ray-address", cluster.address, "--ray-actors", 2, "--ray-decoders", 2


def lose_node(d, cluster, run, table, batch, expected):
    "Kill a raylet in the middle of a job"
    out = d/"node.parquet"
    process = command(run, table, out, batch, *_on(cluster))
    wait_for_parts(out, 2, process)
    pids = [n.all_processes["raylet"][0].process.pid for n in cluster.worker_nodes]
    victim = max(pids, key=lambda p: len(actors_of(p)))
    lost = actors_of(victim)
    os.kill(victim, signal.SIGKILL)
    done_before = len(list(out.with_name(out.name+".parts").glob("*.parquet")))
    text = process.communicate(timeout=400)[0]
    return dict(actors_lost=lost, parts_before=done_before, code=process.returncode,
        same_bytes=out.exists() and out.read_bytes() == expected.read_bytes()) | ({} if out.exists() else {"text": text[-500:]})


def lose_driver(d, cluster, run, table, batch, expected, again):
    "Kill the driver in the middle of a job, and run it again on Ray or here"
    out = d/f"driver_{again}.parquet"
    process = command(run, table, out, batch, *_on(cluster))
    wait_for_parts(out, 3, process)
    process.kill()
    process.communicate()
    how = dict(batch=batch, store=d/f"{out.stem}.store")
    if again == "ray": done = predict_on_ray(run, table, out, cluster.address, actors=2, decoders=2, **how)
    else: done = predict_table(run, table, out, **how)
    return dict(resumed=done["resumed"], same_bytes=out.read_bytes() == expected.read_bytes())


def cluster_job(d, clips, batch):
    "Lose a node, and lose the driver, on three raylets"
    from ray.cluster_utils import Cluster
    run,table = prepared(d, clips, (3, 4), (160, 120))
    expected = Path(predict_table(run, table, d/"local.parquet", batch=batch, store=d/"local")["out"])
    node = dict(num_cpus=2, object_store_memory=150*2**20)
    cluster = Cluster(initialize_head=True, head_node_args=dict(node, include_dashboard=False))
    try:
        for _ in range(2): cluster.add_node(**node)
        common = (run, table, batch, expected)
        out = {"clips": clips, "pieces": -(-clips//batch)}
        for again in ("ray", "here"):
            out[f"driver_killed_then_{again}"] = lose_driver(d, cluster, *common, again)
            print(out, flush=True)
        out["raylet_killed"] = lose_node(d, cluster, *common)
        print(out, flush=True)
    finally: cluster.shutdown()
    ids = pd.read_parquet(d/"node.parquet")["video_id"]
    return out | {"rows": len(ids), "doubled": int(ids.duplicated().sum()), "lost": clips-ids.nunique()}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("what", choices=["overhead", "cluster"])
    p.add_argument("--clips", type=int, help="Number of clips (default: 200 and 40)")
    p.add_argument("--batch", type=int, help="Videos of a piece (default: 25 and 4)")
    p.add_argument("--rounds", type=int, default=2, help="Rounds of overhead")
    p.add_argument("--keep", type=Path, help="Folder of the simulated clips, kept for a second call (default: temporary)")
    p.add_argument("--out", type=Path, default=Path(__file__).parent/"results"/"on_ray.json", help="JSON file")
    a = p.parse_args()
    os.environ.update({k: v for k,v in RAY.items() if k not in os.environ})
    start,d = time.time(),a.keep or Path(tempfile.mkdtemp())
    d.mkdir(parents=True, exist_ok=True)
    try:
        if a.what == "overhead": result = overhead(d, a.clips or 200, a.rounds, a.batch or 25)
        else: result = cluster_job(d, a.clips or 40, a.batch or 4)
    finally:
        if a.keep is None: shutil.rmtree(d, ignore_errors=True)
    write_json(a.out, (read_json(a.out) if a.out.exists() else {}) | {a.what: result})
    print(result)
    print(f"{a.what} of {result['clips']} clips in {time.time()-start:.0f} s; {a.out}")


if __name__ == "__main__": sys.exit(main())
