"""Score of every second: does the curve of a trained network find the second on which popularity depends?

    python bench/score_over_time.py [--clips 400] [--test 60] [--epochs 15] [--seed 0] [--out FILE]

Simulated clips of 5 to 8 seconds whose popularity depends on one second alone: a disc raises it, a diamond lowers it, a
square does nothing. A small R(2+1)D (preset tiny, clips of one second) is trained on them. On other clips with a disc
the highest score, with a diamond the lowest score should lie in the marker's second. `chance` is the share of the
windows that lie there."""
import argparse, json, tempfile
from pathlib import Path

import numpy as np

import popnb
from popnb.core import write_json
from popnb.explain.score_over_time import score_over_time
from popnb.metrics.metrics import srocc
from popnb.simulation.dataset import simulate


def found_moments(model, s, step):
    "For each clip with a disc or a diamond: its kind, whether the extreme lies at the marker, and the chance of it"
    d,out = s.signals.set_index("video_id"),[]
    broken = sum(s.broken.values(), [])
    for i,vid in enumerate(s.table["video_id"]):
        kind,at = d.loc[vid, ["kind", "at"]]
        if kind == "square" or vid in broken: continue
        got = score_over_time(model, s.table.iloc[[i]].reset_index(drop=True), step=step)
        y = got["score"].to_numpy()*(1 if kind == "disc" else -1)
        near = (np.abs(got["second"]-at-.5) <= .5+step/2).to_numpy()
        out.append((kind, bool(near[y.argmax()]), float(near.mean())))
    return out


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--clips", type=int, default=400)
    p.add_argument("--test", type=int, default=60)
    p.add_argument("--epochs", type=int, default=15)
    p.add_argument("--step", type=float, default=.5)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--out", type=Path)
    a = p.parse_args()
    with tempfile.TemporaryDirectory() as d:
        look = dict(weights={"moment": 1}, seconds=(5, 8), size=(128, 72), fps=12)
        s,fresh = (simulate(n, Path(d)/k, seed=seed, **look) for n,k,seed in ((a.clips, "a", a.seed), (a.test, "b", a.seed+1000)))
        run = popnb.train("r2plus1d", s.table, Path(d)/"run", label="ecr", preset="tiny", n_boot=0, store=Path(d)/"store",
            frames=4, clips=6, rate=4., seed=a.seed, training={"epochs": a.epochs})
        whole = srocc(fresh.table["ecr"].to_numpy(float), run.model.predict(fresh.table)["prediction"].to_numpy())
        found = found_moments(run.model, fresh, a.step)
    hits = {k: [h for kind,h,_ in found if kind == k] for k in ("disc", "diamond")}
    result = {"clips": a.clips, "epochs": a.epochs, "step": a.step, "seed": a.seed, "tested": len(found), "srocc": float(whole),
        "found": {k: [sum(v), len(v)] for k,v in hits.items()}, "share": float(np.mean([h for _,h,_ in found])),
        "chance": float(np.mean([c for *_,c in found]))}
    if a.out: write_json(a.out, result)
    print(json.dumps(result))


if __name__ == "__main__": main()
