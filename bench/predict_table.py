"""Does `popnb predict --data` hold its memory, and what do batches cost?

    python bench/predict_table.py [--rows 5000 50000] [--rounds 3] [--batch 2000] [--videos 1000] [--out bench/results/predict_table.json]

A tabular run on texts, time and creator predicts simulated tables of each size, each in a process of its own. Written are the
resident memory after loading, its peak during the job, and rows a second; and for the first size how busy the job keeps the
model: the time of the bare forward pass, `model.predict` of the same batches in memory, over that of the whole job. The same
for a network on videos whose frames are cached, with `forward_rows` as the bare forward pass. ABAB in one process, medians,
by the clock and in processor time, in which what runs beside the forward pass counts in full.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from process_memory import MALLOC, process_bytes, reset_peak

from popnb.core import write_json
from popnb.data.table import read_table
from popnb.models.predictor import load
from popnb.runs.predict_table import predict_table
from popnb.runs.train import train
from popnb.simulation.dataset import simulate


def repeated(table, rows, path):
    "A Parquet file of so many rows, those of a table again and again with new ids"
    writer = None
    for n in range(0, rows, len(table)):
        part = table[:rows-n]
        part = pa.Table.from_pandas(part.assign(video_id=[f"v{n+i}" for i in range(len(part))]), preserve_index=False)
        writer = writer or pq.ParquetWriter(path, part.schema)
        writer.write_table(part)
    writer.close()
    return path


def job(run, first, table, out, batch):
    "Print peak and rate of one job"
    model = load(run)
    predict_table(model, first, out.with_suffix(".first"), batch=batch, store=out.parent/"store")     # imports, caches
    start,t = reset_peak(),time.time()
    done = predict_table(model, table, out, batch=batch, store=out.parent/"store", level=.8)
    seconds = time.time()-t
    print(json.dumps(dict(rows=done["rows"], start_mb=start//2**20, peak_mb=process_bytes("VmHWM")//2**20,
        rows_a_second=round(done["rows"]/seconds))))


def alone(*args):
    "Result of a job in a process of its own"
    text = subprocess.run([sys.executable, __file__, "--job", *map(str, args)], capture_output=True, text=True, check=True,
        env=os.environ | MALLOC | {"POPNB_PROGRESS": "0"}).stdout
    return json.loads(text.splitlines()[-1])


def forget(model): model.design.reader._recent = {}     # columns of the last texts


def seconds(work):
    "Time of `work` by the clock and of the processor"
    start = time.perf_counter(),time.process_time()
    work()
    return time.perf_counter()-start[0],time.process_time()-start[1]


def busy(bare, job, rounds):
    "Bare forward pass over whole job, medians of alternating rounds"
    pairs = [(seconds(bare), seconds(lambda: job(i))) for i in range(rounds)]
    by_clock,processor = ([bare[k]/job[k] for bare,job in pairs] for k in (0, 1))
    return dict(by_clock=round(statistics.median(by_clock), 3), processor_time=round(statistics.median(processor), 3),
        rounds=[round(v, 3) for v in by_clock])


def texts_busy(run, table, out, batch, rounds):
    "`busy` of a run on texts"
    model,frame = load(run),pd.read_parquet(table)
    def bare():
        forget(model)
        for a in range(0, len(frame), batch): model.predict(frame[a:a+batch])
    def job(i):
        forget(model)
        predict_table(model, table, out.with_suffix(f".{i}"), batch=batch, store=out.parent/"store")
    return busy(bare, job, rounds)


def network_busy(d, rows, batch, rounds):
    "`busy` of a small R(2+1)D on cached frames of 40 clips, again and again"
    world = simulate(40, d/"clips", seed=1, seconds=(1.5, 2)).table
    run = train("r2plus1d", world, d/"network", preset="tiny", n_boot=0, store=d/"store", training=dict(epochs=1)).folder
    path,model = repeated(world, rows, d/"videos.parquet"),load(run)
    predict_table(model, path, d/"videos.first", batch=batch, store=d/"store")
    frame = read_table(path)
    loaded = [model.load_inputs(frame[a:a+batch].reset_index(drop=True)) for a in range(0, rows, batch)]
    def bare():
        for inputs in loaded: model.forward_rows(inputs.subset(inputs.ok))
    return busy(bare, lambda i: predict_table(model, path, d/f"videos.{i}", batch=batch, store=d/"store"), rounds)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rows", type=int, nargs="+", default=[5000, 50000])
    p.add_argument("--batch", type=int, default=2000)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--videos", type=int, default=1000, help="rows of the table of videos")
    p.add_argument("--job", nargs=5, help=argparse.SUPPRESS)
    p.add_argument("--out", type=Path, default=Path(__file__).parent/"results"/"predict_table.json", help="JSON file")
    a = p.parse_args()
    if a.job: return job(*map(Path, a.job[:4]), int(a.job[4]))
    start = time.time()
    with tempfile.TemporaryDirectory() as d:
        d,world = Path(d),simulate(5000, media=False, seed=0).table
        small = dict(inputs=["title", "description", "time", "creator"], members=1, rounds=200)
        run = train("tabular", world, d/"run", encoders=None, n_boot=0, store=d/"store", **small).folder
        tables = [repeated(world, n, d/f"t{n}.parquet") for n in a.rows]
        result = dict(batch=a.batch, jobs=[alone(run, tables[0], t, d/f"{t.stem}.scores", a.batch) for t in tables])
        result["peak_over_first"] = round(max(j["peak_mb"] for j in result["jobs"])/result["jobs"][0]["peak_mb"], 3)
        result["forward_pass_over_job"] = dict(texts=texts_busy(run, tables[0], d/"again.parquet", a.batch, a.rounds),
            network=network_busy(d, a.videos, 200, a.rounds))
    print(result)
    write_json(a.out, result)
    print(f"{len(tables)} tables in {time.time()-start:.0f} s; {a.out}")


if __name__ == "__main__": sys.exit(main())
