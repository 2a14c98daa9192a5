"""Score of every second: does the curve of a trained network find the second on which popularity depends?

    python bench/score_over_time.py [--clips 300] [--epochs 12] [--system r2plus1d] [--seed 0] [--out FILE]

Simulated clips whose popularity depends on one second alone: a disc raises it, a diamond lowers it, a square does
nothing. A small network is trained on whole clips. On test clips with a disc the highest score, with a diamond the
lowest score should lie in the marker's second. `chance` is the share of the windows that lie there."""
import argparse, json, tempfile
from pathlib import Path

import numpy as np

import popnb
from popnb.core import write_json
from popnb.explain.score_over_time import score_over_time
from popnb.simulation.dataset import simulate


def found_moments(run, s, step):
    "For each test clip with a disc or a diamond: whether the extreme lies at the marker, and the chance of it"
    d = s.signals.set_index("video_id")
    rows = s.table[s.table["video_id"].isin(run.split.ids["test"])]
    hits,chance = [],[]
    for i in range(len(rows)):
        row = rows.iloc[[i]].reset_index(drop=True)
        kind,at = d.loc[row["video_id"][0], ["kind", "at"]]
        if kind == "square" or row["video_id"][0] in sum(s.broken.values(), []): continue
        got = score_over_time(run.model, row, step=step)
        y = got["score"].to_numpy()*(1 if kind == "disc" else -1)
        near = np.abs(got["second"]-at-.5) <= .5+step/2
        hits.append(bool(near[y.argmax()])), chance.append(float(near.mean()))
    return hits,chance


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--clips", type=int, default=300)
    p.add_argument("--epochs", type=int, default=12)
    p.add_argument("--system", default="r2plus1d")
    p.add_argument("--step", type=float, default=.5)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--out", type=Path)
    a = p.parse_args()
    with tempfile.TemporaryDirectory() as d:
        s = simulate(a.clips, Path(d)/"clips", seed=a.seed, weights={"moment": 1}, seconds=(5, 8), size=(128, 72), fps=12)
        run = popnb.train(a.system, s.table, Path(d)/"run", label="ecr", preset="tiny", n_boot=200, store=Path(d)/"store",
            training={"epochs": a.epochs})
        hits,chance = found_moments(run, s, a.step)
    n,k = len(hits),sum(hits)
    result = {"system": a.system, "clips": a.clips, "epochs": a.epochs, "step": a.step, "tested": n, "found": k, "share": k/max(n, 1),
        "chance": float(np.mean(chance)) if chance else None, "srocc": run.scores.metrics["srocc"]}
    if a.out: write_json(a.out, result)
    print(json.dumps(result))


if __name__ == "__main__": main()
