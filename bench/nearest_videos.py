"""Are near-copies of known videos found, and in what time?

    python bench/nearest_videos.py [--rows 10000 100000 1000000] [--random 10000 100000] [--queries 1000] [--threads 2]
                                   [--out bench/results/nearest_videos.json]

Vectors of 384 numbers in topics (`topics`), as encoders give them, and without any structure (`random`), which is the
hardest case for a graph. Queries are near-copies of known videos by another creator: a vector with noise, of the cosine
that is written. A creator has 20 videos; those of the query's creator, among them its nearest one, must not be found.
For each number of rows: the exact search and the graph of usearch in alternating rounds, recall of the planted video
among 10 neighbours, milliseconds a query alone and in one call of all, and seconds and size of the graph. `earlier` are
queries of a random moment, for which only earlier videos count, found by the graph and checked against the exact search.
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
from popnb.features.vector_index import VectorIndex, unit_length

WIDTH = 384


def world(n, kind, seed=0):
    "Unit vectors float32 `(n, WIDTH)`, made in parts to save memory"
    rng,low = np.random.default_rng(seed),64
    spread = rng.standard_normal((low, WIDTH), dtype=np.float32)/np.sqrt(low)
    centres = rng.standard_normal((max(n//500, 20), low), dtype=np.float32)
    out = np.empty((n, WIDTH), np.float16)
    for a in range(0, n, 50_000):
        m = min(50_000, n-a)
        X = rng.standard_normal((m, WIDTH), dtype=np.float32)
        if kind == "topics":
            inner = centres[rng.integers(len(centres), size=m)] + .7*rng.standard_normal((m, low), dtype=np.float32)
            X = inner @ spread + .3*X
        out[a:a+m] = unit_length(X)
    return out


def planted(X, n, seed=1):
    "Positions of `n` videos, and near-copies of them"
    rng = np.random.default_rng(seed)
    at = rng.choice(len(X), n, replace=False)
    return at, unit_length(X[at].astype(np.float32) + .3*rng.standard_normal((n, WIDTH), dtype=np.float32)/np.sqrt(WIDTH))


def seconds(f):
    start = time.perf_counter()
    out = f()
    return time.perf_counter()-start, out


def compare(n, kind, queries, threads, repeats=3):
    X = world(n, kind)
    at,Q = planted(X, min(queries, n))
    creator = np.random.default_rng(2).integers(n//20, size=n)
    asking = creator[(at+1) % n]                                         # another creator, who has 20 videos too
    clash = asking == creator[at]
    def refuse(q, v, s): return asking[q] == creator[v]
    exact = VectorIndex(X, np.arange(n), exact_rows=n)
    built,graph = seconds(lambda: VectorIndex(X, np.arange(n), exact_rows=min(n-1, 1000), threads=threads))
    few,until = slice(0, min(len(Q), 20 if n > 200_000 else 200)),np.random.default_rng(3).integers(n//10, n, len(Q))
    out = dict(kind=kind, rows=n, width=WIDTH, cosine=float((Q*X[at]).sum(1).mean()), build_s=built, threads=threads,
        graph_mb=len(graph.state()["graph"])/1e6, vectors_mb=X.nbytes/1e6)
    times = {"exact": [], "graph": []}
    for _ in range(repeats):
        for name,index,part in (("exact", exact, few), ("graph", graph, slice(None))):
            s,found = seconds(lambda: index.search(Q[part], 10, refuse=refuse))
            times[name].append(1e3*s/len(Q[part]))
            hit = (found[0] == at[part, None]).any(1)[~clash[part]]
            out[f"{name}_recall"],out[f"{name}_queries"] = float(hit.mean()),int(len(hit))
    out |= {f"{k}_ms": float(np.median(v)) for k,v in times.items()}
    alone = [seconds(lambda: graph.search(Q[i:i+1], 10, refuse=lambda q, v, s: refuse(q+i, v, s)))[0] for i in range(50)]
    out["graph_alone_ms"] = float(1e3*np.median(alone))
    s,(rows,_) = seconds(lambda: graph.search(Q[few], 10, until[few], refuse))
    true,_ = exact.search(Q[few], 10, until[few], refuse)
    shared = np.mean([len(set(a) & set(b) - {-1})/max((b >= 0).sum(), 1) for a,b in zip(rows, true)])
    out |= dict(earlier_ms=1e3*s/len(Q[few]), earlier_shared=float(shared), later_found=int((rows > until[few, None]).sum()))
    return out


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rows", type=int, nargs="*", default=[10_000, 100_000, 1_000_000], help="numbers of vectors in topics")
    p.add_argument("--random", type=int, nargs="*", default=[10_000, 100_000], help="numbers of vectors without structure")
    p.add_argument("--queries", type=int, default=1000)
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument("--out", type=Path, default=Path(__file__).parent/"results"/"nearest_videos.json")
    a,results = p.parse_args(),[]
    for kind,sizes in (("topics", a.rows), ("random", a.random)):
        for n in sizes:
            results.append(r := compare(n, kind, a.queries, a.threads))
            print(f"{kind:7} {n:9,} built in {r['build_s']:7.1f} s; exact {r['exact_ms']:8.3f} ms, graph {r['graph_ms']:7.3f} ms, "
                f"alone {r['graph_alone_ms']:.2f} ms; recall {r['graph_recall']:.4f} of {r['graph_queries']}, exact "
                f"{r['exact_recall']:.4f}; earlier {r['earlier_ms']:.2f} ms, shared {r['earlier_shared']:.4f}", flush=True)
            write_json(a.out, dict(
                machine=dict(platform=platform.platform(), processor=processor(), cpus=os.cpu_count(), load=load()),
                versions=versions(("popnb", "numpy", "usearch")), results=results))
    print(f"\n{a.out}")


if __name__ == "__main__": sys.exit(main())
