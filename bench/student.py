"""How much of a stack's score does a small student keep, and how much faster does it answer?

    python bench/student.py [--worlds titles words everything videos shorts] [--rows 3000] [--members tabular learners neighbours]
                            [--folds 5] [--rounds 3] [--student network] [--seed 0] [--work FOLDER] [--out bench/results/student.json]

Worlds, each with its own table and its creators (of `shorts`: near-duplicate titles) in one part of the split:

- `titles`: simulated videos whose views depend on title and creator;
- `words`: titles of made-up words with an effect each, question marks, evenings, creators (as in bench/what_if.py);
- `everything`: the simulation as it is, of whose causes the table shows title, creator and category;
- `videos`: simulated clips, whose signals are measured once into the cache before anything is timed;
- `shorts`: titles of real Shorts, in the folder that POPNB_REAL_DATA names; left out without it.

The teacher is an ensemble of three bagged runs of `tabular` (as it is, with other learners, with nearest known videos). The student
makes its choices on validation rows; the test rows are scored once. Written are the share of Spearman that is kept with
a paired 95 % interval, numbers in the student, bytes, and milliseconds an answer on one core, student and teacher in turn on the
same rows, for one video and for 1,000.
"""
import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from timing import load, result_writer
from popnb.core import real_data
from popnb.features.store import Store
from popnb.runs.bagged import train_bagged
from popnb.runs.distil import cost_text, distil
from popnb.runs.ensemble import train_ensemble
from popnb.runs.train import choose_split
from popnb.simulation.dataset import simulate

MEMBERS = {"tabular": {}, "learners": {"learners": "lightgbm,mlp"}, "neighbours": {"neighbours": "title-ngrams"}}
NOT_ALL = dict.fromkeys(("picture", "motion", "moment", "sound"), 0)


def words(rows, seed):
    "A table of made-up words with planted effects"
    from what_if import drawn
    return drawn(np.random.default_rng(seed), .6, .5, .3, creators=rows//20, videos=20)[0]


def shorts(rows, seed):
    "Real titles; `None` without them"
    from popnb.data.sources import read_source
    if (path := real_data("shorts/youtube_shorts.csv")) is None: return None
    table,_ = read_source("shorts", path)
    return table[table["views"].notna()].reset_index(drop=True)


WORLDS = {
    "titles": lambda n, seed: simulate(n, media=False, seed=seed, weights=NOT_ALL | {"text": 1, "creator": 1, "noise": .5}).table,
    "words": words,
    "everything": lambda n, seed: simulate(n, media=False, seed=seed).table,
    "videos": lambda n, seed: simulate(min(n, 600), seed=seed, seconds=(2, 4), size=(96, 64), fps=10).table,
    "shorts": shorts}


def one(name, a, folder, store):
    "Teacher and student of a world"
    table = WORLDS[name](a.rows, a.seed)
    if table is None: return print(f"{name}: no data")
    split = choose_split(table, "group", seed=a.seed, by=["near_title" if name == "shorts" else "author"])
    how,runs = dict(store=store, n_boot=0, workers=1),[]
    for k in a.members:
        runs.append(folder/name/k)
        if (folder/name/k/"config.json").exists(): continue
        train_bagged("tabular", table, runs[-1], folds=a.folds, split=split, encoders=None, members=1, **MEMBERS[k], **how)
        print(name, k, "trained", flush=True)
    if not (folder/name/"stack"/"config.json").exists(): train_ensemble(table, folder/name/"stack", runs, store=store, n_boot=0)
    done = distil(folder/name/"stack", table, folder/name/a.student, student=a.student, store=store, rounds=a.rounds, overwrite=True,
        **({} if a.made is None else {"made": a.made}))
    print(f"\n{name}\n{cost_text(done.about)}\n" + "\n".join(done.model.notes), flush=True)
    keep = ("kept", "parameters", "bytes", "milliseconds", "faster", "batch")
    return {k: done.about[k] for k in keep} | {"rows": split.counts, "load": load(), "split": split.how, "truth": done.model.about["truth"]}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--worlds", nargs="*", default=list(WORLDS), choices=list(WORLDS))
    p.add_argument("--rows", type=int, default=3000, help="videos of a simulated table; clips at most 600")
    p.add_argument("--members", nargs="*", default=list(MEMBERS), choices=list(MEMBERS), help="members of the teacher")
    p.add_argument("--folds", type=int, default=5)
    p.add_argument("--rounds", type=int, default=3, help="calls whose time is measured")
    p.add_argument("--made", type=int, help="rows that are made for the student (default: as many as training rows)")
    p.add_argument("--student", default="network", choices=("network", "lightgbm"))
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--work", type=Path, help="folder of the runs, which a second call uses (default: a temporary one)")
    p.add_argument("--out", type=Path, default=Path(__file__).parent/"results"/"student.json", help="JSON file")
    a = p.parse_args()
    write = result_writer(a.out, ("numpy", "scipy", "lightgbm", "torch"))
    with tempfile.TemporaryDirectory() as temporary:
        folder = a.work or Path(temporary)
        with Store(folder/"store") as store:
            for name in a.worlds:
                if found := one(name, a, folder, store): write(f"{name}, {a.student}", found)


if __name__ == "__main__": sys.exit(main())
