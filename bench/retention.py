"""Label `retention` on simulated curves: does a model beat the mean curve, and how far is the best possible prediction?

    python bench/retention.py [--rounds 4] [--rows 1500] [--seed 0] [--epochs 20] [--out FILE]

Each round simulates videos of its own seed with retention by a known formula, trains `smtpd` (preset tiny: its encoders
are untrained) on texts and numbers under the split `group`, and scores it on videos of other creators. `floor` is the
error of the formula itself, which knows everything but the noise, `no frames` that of the formula without the moment
in the clip, which no title and no number shows."""
import argparse, json, tempfile
from pathlib import Path

import numpy as np

import popnb
from popnb.core import write_json
from popnb.simulation.dataset import simulate
from popnb.simulation.retention import retention_formula, with_retention


def one_round(rows, seed, epochs, folder):
    "Scores of one training, of its mean curve, and of the formula"
    s = simulate(rows, media=False, seed=seed)
    table = with_retention(s)
    run = popnb.train("smtpd", table, folder/f"run-{seed}", label="retention", split="group", preset="tiny", seed=seed,
        inputs=["numbers", "texts"], n_boot=300, store=folder/"store", training={"epochs": epochs})
    test = table["video_id"].isin(run.split.ids["test"]).to_numpy()
    truth = run.model.label.transform(table[test])
    def floor(moment):
        best = retention_formula(s.signals[test], moment).reshape(truth.shape[0], truth.shape[1], -1).mean(2)
        return float(np.abs(best-truth).mean())
    lead = run.scores.baselines["mean curve"]["amae"]
    found = {k: {o: run.scores.metrics[k][o] for o in ("value", "low", "high")} for k in ("amae", "curve_r2", "level_mae", "asrc")}
    return found | {"n": int(test.sum()), "mean_curve": lead["value"], "difference": lead["difference"],
        "others": {k: v["amae"]["value"] for k,v in run.scores.baselines.items()},
        "floor": floor(True), "no_frames": floor(False)}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rounds", type=int, default=4)
    p.add_argument("--rows", type=int, default=1500)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--epochs", type=int, default=20)
    p.add_argument("--out", type=Path)
    a = p.parse_args()
    with tempfile.TemporaryDirectory() as d:
        rounds = [one_round(a.rows, s, a.epochs, Path(d)) for s in range(a.seed, a.seed+a.rounds)]
    beats = sum(r["difference"]["high"] < 0 for r in rounds)
    result = {"rows": a.rows, "epochs": a.epochs, "rounds": rounds, "beats_mean_curve": beats}
    result |= {k: float(np.mean([r[k]["value"] for r in rounds])) for k in ("amae", "curve_r2", "level_mae")}
    result |= {k: float(np.mean([r[k] for r in rounds])) for k in ("mean_curve", "floor", "no_frames")}
    if a.out: write_json(a.out, result)
    print(json.dumps({k: v for k,v in result.items() if k != "rounds"} | {"rounds": len(rounds)}))


if __name__ == "__main__": main()
