"""What do tables of many rows cost? Wall time, processor time and peak memory of each step, each in a process of its own.

    python bench/large_tables.py [--rows 100000 1000000] [--steps import_csv …] [--out bench/results/large_tables.json]

Made are tables with the columns of `popnb.simulate` without media and without daily counts; to its titles and descriptions
words of a vocabulary of 30,000 are added, drawn by Zipf's law, so that texts differ as they do on a platform. Steps:
import of the CSV and of the Parquet file into a table, label, four splits, audit, training of the tabular system (`train` writes
run, report and scores; small trees), prediction of the whole table into a Parquet file. A process over 11 GB is refused memory.
The entry of 10,000,000 rows is not measured: it is the straight line through the two largest tables (`extrapolated_from`).
"""
import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LIMIT = 11 << 30   # bytes of private memory of one process
WORDS = 30_000


def texts(rng, n, words):
    "Short texts of words drawn by Zipf's law"
    import numpy as np
    size = rng.integers(2, 7, n)
    drawn = np.minimum(rng.zipf(1.3, size.sum()), WORDS)-1
    ends = np.cumsum(size)
    return [" ".join(words[drawn[e-s:e]]) for s,e in zip(size, ends)]


def part(seed, n, words):
    "Rows of one simulated world with own ids and creators"
    import numpy as np
    from popnb.simulation.dataset import simulate
    t,rng = simulate(n, media=False, seed=seed).table,np.random.default_rng(seed)
    t = t[[c for c in t if not c.startswith("day_")]]
    title = t["title"].astype(object)+" "+np.array(texts(rng, n, words), dtype=object)
    return t.assign(title=title, author=f"w{seed}_"+t["author"].astype(object),
        description=t["description"].astype(object)+" "+np.array(texts(rng, n, words), dtype=object))


def make(folder, rows, size=200_000):
    "Write the table as a CSV file with a platform's names of columns, and as Parquet"
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    rng,writer = np.random.default_rng(0),None
    letters = np.array(list("etaoinshrdlucmfwypvbgkjqxz"))
    words = np.array(["".join(rng.choice(letters, k)) for k in rng.integers(2, 10, WORDS)], dtype=object)
    names = {"video_id": "aweme_id", "views": "playCount", "likes": "diggCount", "published_at": "createTimeISO"}
    for i,a in enumerate(range(0, rows, size)):
        t = part(i, min(size, rows-a), words)
        t.rename(columns=names).to_csv(folder/"raw.csv", mode="a", header=not a, index=False)
        arrow = pa.Table.from_pandas(t, preserve_index=False)
        writer = writer or pq.ParquetWriter(folder/"raw.parquet", arrow.schema)
        writer.write_table(arrow)
    writer.close()
    return {"csv_mb": round((folder/"raw.csv").stat().st_size/1e6, 1)}


def import_csv(folder): return imported(folder, "raw.csv", "table.parquet")

def import_parquet(folder): return imported(folder, "raw.parquet", "again.parquet")

def imported(folder, name, out):
    "What `popnb import csv --csv FILE --out TABLE` does"
    from popnb.data.large_csv import import_file
    return {"kept": import_file("csv", folder/name, folder/out).kept}


def import_parts(folder):
    "The same, in parts as a larger file"
    from unittest import mock
    with mock.patch("popnb.data.large_csv.LARGE_CSV", 1): return imported(folder, "raw.csv", "parts.parquet")


def convert_arrow(folder):
    "CSV to Parquet by pyarrow, a block at a time"
    import pyarrow.csv as pc
    import pyarrow.parquet as pq
    parse = pc.ParseOptions(newlines_in_values=True)
    with pc.open_csv(folder/"raw.csv", parse_options=parse) as blocks:
        with pq.ParquetWriter(folder/"arrow.parquet", blocks.schema) as writer:
            for b in blocks: writer.write_batch(b)
    return {}


def convert_duckdb(folder):
    "The same by duckdb, in two threads and at most 1 GB"
    import duckdb
    with duckdb.connect(config={"threads": 2, "memory_limit": "1GB"}) as db:
        db.execute(f"copy (from read_csv('{folder}/raw.csv')) to '{folder}/duckdb.parquet'")
    return {}


def convert_polars(folder):
    "The same by polars, streaming"
    import polars as pl
    pl.scan_csv(folder/"raw.csv").sink_parquet(folder/"polars.parquet")
    return {}


def import_converted(folder): return imported(folder, "arrow.parquet", "third.parquet")


def read(folder):
    from popnb.data.table import read_table
    return {"rows": len(read_table(folder/"table.parquet"))}


def label(folder):
    from popnb.data.labels import make_label
    from popnb.data.table import read_table
    t = read_table(folder/"table.parquet")
    y = make_label("log-views").fit(t).transform(t)
    return {"labels": int((y == y).sum())}


def split_of(folder, how, **options):
    "Split a table and store the split, as a run does"
    from popnb.core import write_json
    from popnb.data.splits import make_split
    from popnb.data.table import read_table
    s = make_split(read_table(folder/"table.parquet"), how, **options)
    write_json(folder/"split.json", s.to_dict())
    return s.counts


def split_random(folder): return split_of(folder, "random")

def split_group(folder): return split_of(folder, "group", by="author")

def split_titles(folder): return split_of(folder, "group", by=["author", "near_title"])

def split_time(folder): return split_of(folder, "time")


def audit(folder):
    from popnb.audit.audit import audit as run
    found = run(folder/"table.parquet")
    found.save(folder/"audit")
    return {"findings": len(found.findings), "bytes": sum(p.stat().st_size for p in (folder/"audit").iterdir())}


INPUTS = ["time", "creator", "category"]

def fitted(folder, name, inputs):
    "Train a run with small trees, report and scores included"
    from popnb.runs.train import train as run
    r = run("tabular", folder/"table.parquet", folder/name, split="group", encoders=None, n_boot=100, overwrite=True,
        store=folder/"store", inputs=inputs, members=1, rounds=100)
    name,found = next(iter(r.scores.metrics.items()))
    return {name: round(found["value"], 4)}


def predicted(folder, name):
    from popnb.runs.predict_table import predict_table
    out = folder/f"{name}.scores.parquet"
    return predict_table(folder/name, folder/"table.parquet", out, store=folder/"store", overwrite=True, batch=10_000)


def train(folder): return fitted(folder, "run", INPUTS)

def predict(folder): return predicted(folder, "run")

def train_titles(folder): return fitted(folder, "run_titles", ["title", *INPUTS])

def predict_titles(folder): return predicted(folder, "run_titles")

def train_texts(folder): return fitted(folder, "run_texts", ["title", "description", *INPUTS])

def predict_texts(folder): return predicted(folder, "run_texts")


STEPS = (import_csv, import_parts, import_parquet, convert_arrow, convert_duckdb, convert_polars, import_converted, read, label, split_random, split_group, split_titles, split_time,
    audit, train, predict, train_titles, predict_titles, train_texts, predict_texts)
LARGEST = 10_000_000   # rows of the table that is not measured


def child(name, folder):
    "Run one step and print what it took"
    resource.setrlimit(resource.RLIMIT_DATA, (LIMIT, LIMIT))
    import popnb.cli.main  # noqa: F401, what each command imports
    started,busy = time.time(),time.process_time()
    out = globals()[name](folder)
    out = {k: v for k,v in out.items() if k not in ("out", "resumed")}
    print(json.dumps(dict(seconds=round(time.time()-started, 2), cpu_seconds=round(time.process_time()-busy, 2),
        peak_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss//1024, **out), default=str))


def alone(name, folder, timeout):
    "Result of a step in a process of its own, or its error"
    try: p = subprocess.run([sys.executable, __file__, "--step", name, str(folder)], capture_output=True, text=True,
        env=os.environ | {"POPNB_PROGRESS": "0"}, timeout=timeout)
    except subprocess.TimeoutExpired: return {"error": f"not done after {timeout} s"}
    if p.returncode: return {"error": (p.stderr.strip().splitlines() or ["killed"])[-1][:200]}
    return json.loads(p.stdout.splitlines()[-1])


def extrapolated(result):
    "Processor time and peak memory of `LARGEST` rows, on the straight line through the two largest tables with both"
    rows,out = sorted(int(n) for n in result if n.isdigit() and int(n) < LARGEST),{}
    for name in (f.__name__ for f in STEPS):
        known = [n for n in rows if "peak_mb" in result[str(n)].get(name, {})][-2:]
        if len(known) < 2: continue
        (a,b),(one,two) = known,(result[str(n)][name] for n in known)
        def line(k): return two[k] + (two[k]-one[k])/(b-a)*(LARGEST-b)
        out[name] = {"extrapolated_from": known, "cpu_seconds": round(line("cpu_seconds")), "peak_mb": round(line("peak_mb"))}
    return out


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    p.add_argument("--steps", nargs="+", default=[f.__name__ for f in STEPS])
    p.add_argument("--timeout", type=int, default=1800, help="seconds of one step at most")
    p.add_argument("--keep", type=Path, help="folder for the tables, kept and used again")
    p.add_argument("--step", nargs=2, help=argparse.SUPPRESS)
    p.add_argument("--out", type=Path, default=Path(__file__).parent/"results"/"large_tables.json", help="JSON file")
    a = p.parse_args()
    if a.step: return child(a.step[0], Path(a.step[1]))
    from popnb.core import read_json, write_json
    start,result = time.time(),read_json(a.out) if a.out.exists() else {}
    result.pop(str(LARGEST), None)
    with tempfile.TemporaryDirectory() as d:
        for n in a.rows:
            folder = (a.keep or Path(d))/str(n)
            folder.mkdir(parents=True, exist_ok=True)
            if not (folder/"raw.parquet").exists(): make(folder, n)
            for name in a.steps:
                r = result.setdefault(str(n), {})[name] = alone(name, folder, a.timeout)
                print(f"{n:>10,} {name:14} {r}", flush=True)
                write_json(a.out, result | {str(LARGEST): extrapolated(result)})
    print(f"{len(a.rows)} tables, {len(a.steps)} steps in {time.time()-start:.0f} s; {a.out}")


if __name__ == "__main__": sys.exit(main())
