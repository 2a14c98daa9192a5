"""How far are forecasts of daily views off: the growth system against smtpd and its baselines?

    python bench/growth.py --data DIR [--seeds 0 1 2 3 4] [--known 1 3] [--out bench/results/growth.json]

DIR is a folder of daily counts (`popnb import daily`), e.g. views.tsv and others with 22 days of 1,496 videos. Each seed
is a random split, 70 % training, 10 % validation, 20 % test rows. All models predict the later days of the test rows of
the same splits; the error is the mean absolute error of log10(views + 1) over the unknown days. smtpd is trained as on
its page: numbers, category and language, without thumbnail and texts, 40 epochs.

Differences are paired: errors of a video are averaged over its days, and channels are drawn again 4,000 times with all
their videos in all seeds. Negative: the first is better. `growth and smtpd` is the mean of both predictions, `blend` has
weights fitted on the validation rows, as `popnb train ensemble` and `train auto` do. Seconds are those of one fit, processor time.
"""
import argparse
import time

import numpy as np

from timing import result_writer
from popnb.data.labels import make_label
from popnb.data.sources import read_source
from popnb.data.splits import make_split
from popnb.evaluation.prediction_files import value_columns
from popnb.models.ensemble.blending import Blend, creator_time_folds
from popnb.models.smtpd.growth import GrowthCurves
from popnb.models.smtpd.system import Smtpd
from popnb.training.config import make_config
from popnb.training.engine import Engine


def fit_smtpd(train, valid, label, known, seed):
    "The network on numbers, category and language"
    extra = ["age", *(f"{k}_{i}" for k in ("likes", "comments") for i in range(1, known+1))]
    m = Smtpd("tiny", seed, ep=known, extra=extra, inputs=["numbers", "category", "language"])
    m.engine = Engine(make_config(m.training, {"epochs": 40, "precision": "fp32"}))
    return m.fit(train, valid, label)


def errors(preds, rows, days):
    "`(n,)` mean absolute error of log10(views + 1) of each video"
    p = preds[value_columns(preds, "prediction")].to_numpy()
    views = np.maximum((2**p-1)*np.array(days), 0)
    return np.nanmean(np.abs(np.log10(views+1)-np.log10(rows[[f"day_{d}" for d in days]].to_numpy()+1)), 1)


def blended(members, valid, test, label, days):
    "Curves `(n, T)` of the test rows by a blend that is fitted on the validation rows"
    def curves(rows): return np.stack([(p := m.predict(rows))[value_columns(p, "prediction")].to_numpy() for m in members])
    y = label.transform(valid)[:, [label.grid.index(d) for d in days]]
    some = np.isfinite(y).any(1)
    P,y,fold = curves(valid)[:, some],y[some],creator_time_folds(valid[some].reset_index(drop=True))[0]
    blend = Blend("nnls", "sequence").fit(P, np.ones(P.shape[:2], bool), y, fold)
    return blend.predict(Q := curves(test), np.ones(Q.shape[:2], bool))


def one_split(table, seed, known):
    "Errors of every model on the test rows of one seed, their channels, and seconds"
    cut = make_split(table, "random", sizes=(.7, .1, .2), seed=seed)
    a,b,c = (table[cut.rows(table, p)].reset_index(drop=True) for p in ("train", "valid", "test"))
    c = c[c[[f"day_{d}" for d in range(known+1, 23)]].notna().any(axis=1)].reset_index(drop=True)
    start = time.process_time()
    grown = GrowthCurves(ep=known, seed=seed).fit(a, b, make_label("views-per-day", days=22))
    middle = time.process_time()
    net = fit_smtpd(a, b, make_label("views-per-day", days=22), known, seed)
    seconds = {"growth": middle-start, "smtpd and its baselines": time.process_time()-middle}
    frames = {"growth": grown.predict(c), "smtpd": net.predict(c), **net.baselines(c)}
    values = value_columns(frames["growth"], "prediction")
    frames["growth and smtpd"] = frames["growth"].copy()
    frames["growth and smtpd"][values] = (frames["growth"][values]+frames["smtpd"][values])/2
    frames["blend"] = frames["growth"].copy()
    frames["blend"][values] = blended([grown, net], b, c, grown.label, grown.days)
    return {k: errors(p, c, grown.days) for k,p in frames.items()},c["author"].to_numpy(dtype=object),seconds


def paired(difference, channel, n=4000, seed=0):
    "Mean difference and its 95 % interval, channels drawn again"
    code,k = np.unique(channel, return_inverse=True)[1],len(set(channel))
    total,size = np.bincount(code, difference, k),np.bincount(code, minlength=k)
    drawn = np.random.default_rng(seed).multinomial(k, np.full(k, 1/k), n)
    low,high = np.percentile((drawn @ total)/(drawn @ size), [2.5, 97.5])
    return dict(mean=float(difference.mean()), low=float(low), high=float(high))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", required=True, help="folder of daily counts")
    p.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    p.add_argument("--known", type=int, nargs="+", default=[1, 3], help="numbers of known days")
    p.add_argument("--out", default="bench/results/growth.json", help="JSON file")
    a = p.parse_args()
    table,write = read_source("daily", a.data)[0],result_writer(a.out, ("lightgbm", "torch", "numpy"), seeds=a.seeds)
    for known in a.known:
        found,channels,seconds = zip(*(one_split(table, s, known) for s in a.seeds))
        by_seed = {k: [float(f[k].mean()) for f in found] for k in found[0]}
        pooled,channel = {k: np.concatenate([f[k] for f in found]) for k in found[0]},np.concatenate(channels)
        result = {"error": {k: float(np.mean(v)) for k,v in by_seed.items()}, "by_seed": by_seed,
            "seconds": {k: float(np.median([s[k] for s in seconds])) for k in seconds[0]}}
        for ours in ("growth", "growth and smtpd", "blend"):
            result[f"{ours} minus"] = {k: paired(pooled[ours]-v, channel) for k,v in pooled.items() if k != ours}
        print(known, {k: round(v, 4) for k,v in result["error"].items()}, result["seconds"], flush=True)
        write(f"{known} known", result)


if __name__ == "__main__": main()
