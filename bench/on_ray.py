"""What does Ray cost over one machine, and what survives a lost node or a killed driver?

    python bench/on_ray.py overhead [--clips 200] [--rounds 2]
    python bench/on_ray.py cluster [--clips 40] [--batch 4]
    python bench/on_ray.py features [--clips 60] [--batch 2]

`overhead`: simulated clips through an untrained network of frames, by the same command on this machine and on a Ray that runs
already (ABAB, a fresh feature cache each time); the files are compared byte for byte, also with decoders of their own and two
network actors. Stated apart are the start of Ray, a job of one clip (here, on a new Ray, and on one that has had a job), the
seconds that Ray adds, and from how many clips on these are less than 10 %. `cluster`: three raylets on this machine; in the
middle of jobs the driver is ended by kill -9, and the job resumed on Ray or without it, then one raylet, with and without decoders. `features`: signals
and vectors on Ray; the driver or an actor is ended by kill -9 in the middle, and a second call completes after the driver; answers
and store are compared with those of one machine. Results go to bench/results/on_ray.json.
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
from popnb.features.store import Store
from popnb.features.store_parts import part_folders
from popnb.runs.on_ray import predict_on_ray, ray_cluster
from popnb.runs.predict_table import predict_table
from popnb.runs.train import train
from popnb.simulation.dataset import simulate

RAY = {"RAY_agent_register_timeout_ms": "60000", "RAY_local_fs_capacity_threshold": ".99", "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "POPNB_PROGRESS": "0", "OMP_NUM_THREADS": "1",
    "RAY_worker_niceness": "0"}          # the priority of a command on this machine; Ray's own is 15


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


def popnb(*call):
    "A command of popnb as a process"
    call = [sys.executable, "-m", "popnb.cli.main", *map(str, call)]
    return subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def command(run, table, out, batch, *more):
    "The command that predicts a table, as a process"
    return popnb("predict", run, "--data", table, "--out", out, "--batch", batch, "--json",
        "--store", out.parent/f"{out.stem}.store", *more)


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
    on_ray = ("--on", "ray", "--ray-address", address)
    few = d/"few.parquet"
    pd.read_parquet(table)[1:2].to_parquet(few)
    out["one_clip_s"] = [finished(command(run, few, d/f"few{i}.parquet", batch, *more))
        for i,more in enumerate([(), on_ray, on_ray])]
    for i in range(rounds):
        for k,more in (("local", ("--workers", 2)), ("ray", on_ray)):
            out[f"{k}_s"].append(finished(command(run, table, d/f"{k}{i}.parquet", batch, *more)))
            print(k, out[f"{k}_s"], flush=True)
        out["same_bytes"].append((d/f"local{i}.parquet").read_bytes() == (d/f"ray{i}.parquet").read_bytes())
    here,there = (statistics.median(out[k]) for k in ("local_s", "ray_s"))
    out["ratio"],out["ray_adds_s"] = round(there/here, 3),round(there-here, 1)
    clip = (here-out["one_clip_s"][0])/(clips-1)                                  # seconds of a further clip
    out["below_10_percent_from_clips"] = max(1, round((10*(there-here)-out["one_clip_s"][0])/clip)+1)
    finished(command(run, table, d/"two.parquet", batch, *on_ray, "--ray-actors", 2, "--ray-decoders", 2, "--workers", 1))
    out["same_bytes_two_actors_two_decoders"] = (d/"two.parquet").read_bytes() == (d/"local0.parquet").read_bytes()
    return out


def wait_for_parts(out, n, process, seconds=300):
    "Wait until a job has written so many parts"
    folder,end = out.with_name(out.name+".parts"),time.time()+seconds
    while len(list(folder.glob("*.parquet"))) < n:
        if process.poll() is not None or time.time() > end: raise SystemExit(f"The job ended early: {process.communicate()[0]}")
        time.sleep(.1)


def actors_of(raylet):
    "Names of the actors that run on a node, by process"
    out = {}
    for p in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((p/"stat").read_text().rpartition(")")[2].split()[1])
            name = (p/"cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
        except OSError: continue
        if parent == raylet and name.startswith("ray::Map"): out[int(p.name)] = name.partition(".")[0]
    return out


def _on(cluster, decoders=2):
    return "--on", "ray", "--ray-address", cluster.address, "--ray-actors", 2, "--ray-decoders", decoders, "--workers", 1


def lose_node(d, cluster, run, table, batch, expected, decoders):
    "Kill a raylet in the middle of a job"
    out = d/f"node_{decoders}.parquet"
    process = command(run, table, out, batch, *_on(cluster, decoders))
    wait_for_parts(out, 2, process)
    pids = [n.all_processes["raylet"][0].process.pid for n in cluster.worker_nodes]
    victim = max(pids, key=lambda p: len(actors_of(p)))
    lost = sorted(actors_of(victim).values())
    os.kill(victim, signal.SIGKILL)
    done_before = len(list(out.with_name(out.name+".parts").glob("*.parquet")))
    text = process.communicate(timeout=400)[0]
    found = dict(actors_lost=lost, parts_before=done_before, code=process.returncode)
    if not out.exists(): return found | {"text": text[-500:]}
    ids,there = (pd.read_parquet(p)["video_id"] for p in (out, expected))
    return found | dict(same_bytes=out.read_bytes() == expected.read_bytes(), rows=len(ids), doubled=int(ids.duplicated().sum()),
        lost=len(set(there)-set(ids)))


def lose_driver(d, cluster, run, table, batch, expected, again):
    "Kill the driver in the middle of a job, and run it again on Ray or here"
    out = d/f"driver_{again}.parquet"
    process = command(run, table, out, batch, *_on(cluster))
    wait_for_parts(out, 3, process)
    process.kill()
    process.communicate()
    how = dict(batch=batch, store=d/f"{out.stem}.store", workers=1)
    if again == "ray": done = predict_on_ray(run, table, out, cluster.address, actors=2, decoders=2, **how)
    else: done = predict_table(run, table, out, **how)
    return dict(resumed=done["resumed"], same_bytes=out.read_bytes() == expected.read_bytes())


def cluster_job(d, clips, batch):
    "Lose the driver, and two of three raylets one after the other"
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
        for decoders in (2, 0):
            out[f"raylet_killed_{decoders}_decoders"] = lose_node(d, cluster, *common, decoders)
            print(out, flush=True)
    finally: cluster.shutdown()
    return out


def records(store):
    "Key -> names and bytes of each record of a store"
    if not (store/"store.json").exists(): return {}
    s = Store(store, readonly=True)
    keys = list(s.keys())
    plain = lambda r: {k: v if isinstance(v, str) else v.tobytes() for k,v in r.items()}
    return {k: plain(r) for k,r in zip(keys, s.get_many(keys))}


def written(store):
    "Number of records that the actors of a job have written"
    jobs = Path(f"{store}.parts")
    return sum(len(Store(f, readonly=True)) for job in jobs.glob("*/") for f in part_folders(job)) if jobs.exists() else 0


def features_job(name, table, store, on=()):
    "The command that computes features, as a process; their file lies beside the store"
    more = ("--preset", "tiny") if name == "clip" else ()
    return popnb("features", name, "--data", table, "--store", store, "--out", store.with_suffix(".parquet"), "--overwrite", *more, *on)


def wait_for_records(store, n, process, seconds=300):
    "Wait until the actors have written so many records"
    end,found = time.time()+seconds,0
    while found < n:
        if process.poll() is not None or time.time() > end: raise SystemExit(f"The job ended early: {process.communicate()[0]}")
        time.sleep(.1)
        try: found = written(store)
        except Exception: continue                 # a part that an actor is about to make
    return found


def compared(ids, store, expected):
    "Whether answers and records are those of one machine, and how many rows are lost or doubled"
    mine,theirs = (pd.read_parquet(s.with_suffix(".parquet")) for s in (store, expected))
    rows = dict(rows=len(mine), lost=len(set(ids)-set(mine["video_id"])), doubled=int(mine["video_id"].duplicated().sum()))
    return rows | dict(same_answers=mine.equals(theirs), same_records=records(store) == records(expected),
        parts_left=len(list(Path(f"{store}.parts").glob("*/*"))))


def lose_in_features(name, what, d, table, ids, on, raylet, expected):
    "Kill the driver or an actor in the middle of features, and complete them"
    store = d/f"{name}_{what}"
    process = features_job(name, table, store, on)
    before = wait_for_records(store, len(records(expected))//4, process)
    if what == "driver":
        process.kill()
        process.communicate()
        process = features_job(name, table, store, on)
    else: os.kill(min(p for p,n in actors_of(raylet).items() if "FeatureStage" in n), signal.SIGKILL)
    text = process.communicate(timeout=400)[0]
    out = dict(records_before=before, records=len(records(expected)), code=process.returncode)
    return out | (compared(ids, store, expected) if process.returncode in (0, 1) else {"text": text[-500:]})


def features(d, clips, batch):
    "Signals and vectors on a Ray of two processors, with the driver or an actor killed"
    table = prepared(d, clips, (3, 4), (160, 120))[1]
    rows = pd.read_parquet(table)
    (d/"pieces").mkdir(exist_ok=True)
    for i in range(0, clips, batch): rows[i:i+batch].to_parquet(d/"pieces"/f"{i:05d}.parquet")
    out = {"clips": clips, "pieces": -(-clips//batch)}
    with ray_cluster("local", num_cpus=2, object_store_memory=150*2**20) as ray:
        on = ("--on", "ray", "--ray-address", ray.get_runtime_context().gcs_address, "--ray-actors", 2)
        raylet = ray._private.worker._global_node.all_processes["raylet"][0].process.pid
        for name in ("handmade", "clip"):
            finished(features_job(name, d/"pieces", d/f"{name}_here"))
            for what in ("driver", "actor"):
                out[f"{name}_{what}_killed"] = lose_in_features(name, what, d, d/"pieces", rows["video_id"], on, raylet, d/f"{name}_here")
                print(out, flush=True)
    return out


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("what", choices=["overhead", "cluster", "features"])
    p.add_argument("--clips", type=int, help="Number of clips (default: 200, 40 and 60)")
    p.add_argument("--batch", type=int, help="Videos of a piece (default: 25, 4 and 2)")
    p.add_argument("--rounds", type=int, default=2, help="Rounds of overhead")
    p.add_argument("--keep", type=Path, help="Folder of the simulated clips, kept for a second call (default: temporary)")
    p.add_argument("--out", type=Path, default=Path(__file__).parent/"results"/"on_ray.json", help="JSON file")
    a = p.parse_args()
    os.environ.update({k: v for k,v in RAY.items() if k not in os.environ})
    start,d = time.time(),a.keep or Path(tempfile.mkdtemp())
    d.mkdir(parents=True, exist_ok=True)
    try:
        if a.what == "overhead": result = overhead(d, a.clips or 200, a.rounds, a.batch or 25)
        elif a.what == "cluster": result = cluster_job(d, a.clips or 40, a.batch or 4)
        else: result = features(d, a.clips or 60, a.batch or 2)
    finally:
        if a.keep is None: shutil.rmtree(d, ignore_errors=True)
    write_json(a.out, (read_json(a.out) if a.out.exists() else {}) | {a.what: result})
    print(result)
    print(f"{a.what} of {result['clips']} clips in {time.time()-start:.0f} s; {a.out}")


if __name__ == "__main__": sys.exit(main())
