"""P(beats own median) on simulated tables: do the probabilities hold?

    python bench/own_median.py [--rounds 4] [--rows 4000] [--seed 0] [--out FILE]

Each round simulates a table of videos of its own seed, trains `tabular` without media under the split `time` (creators
are known) and the split `group` (creators are new), and compares, on test rows with at least three earlier videos of
their creator, the probability of beating the creator's median with what happened. All rounds together: Brier score,
that of the constant share, and the share that beat the median in five bins of the probability."""
import argparse, json, tempfile
from pathlib import Path

import numpy as np

import popnb
from popnb.core import write_json
from popnb.data.own_median import beats_median, median_reliability, own_medians
from popnb.simulation.dataset import simulate


def probabilities(table, split, seed, folder):
    "Probability and outcome of the test rows of one training"
    run = popnb.train("tabular", table, folder/f"{split}-{seed}", split=split, seed=seed, encoders=None, n_boot=0,
        members=1, store=folder/"store")
    scored = run.scores.scored
    rows = table.set_index("video_id").loc[scored["video_id"]].reset_index()
    median = own_medians(rows, table)["median"].to_numpy()
    p = beats_median(run.model.odds, scored["prediction"].to_numpy(float), median)
    return p,(scored["truth"].to_numpy(float) > median).astype(float)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rounds", type=int, default=4)
    p.add_argument("--rows", type=int, default=4000)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--out", type=Path)
    a = p.parse_args()
    found = {"time": [], "group": []}
    with tempfile.TemporaryDirectory() as d:
        for s in range(a.seed, a.seed+a.rounds):
            table = simulate(a.rows, media=False, seed=s).table
            for split in found: found[split].append(probabilities(table, split, s, Path(d)))
    result = {"rounds": a.rounds, "rows": a.rows}
    result |= {k: median_reliability(*(np.concatenate(o) for o in zip(*v))) for k,v in found.items()}
    if a.out: write_json(a.out, result)
    print(json.dumps(result))


if __name__ == "__main__": main()
