"""How often does the test of claims answer right? Power, false alarms and coverage on simulated tables.

    python bench/claims.py [--rounds 200] [--effects 0 10 30 80] [--sizes "40 creators"] [--seed 0]
                           [--out bench/results/claims.json]

In each table large creators ask more questions in their titles and get more views; a question adds the planted effect,
which is drawn anew for each creator around that mean if `--varies` is above 0. Written are the shares of the three answers,
the coverage of the 95 % interval, the same for the usual cluster-robust (CR1) interval, and the share of false alarms of a
comparison over all videos, which does not hold creators constant. A second part tests ten claims at once, all without an
effect: the share of tables in which any answer is "agrees".
"""
import argparse
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import t

from popnb.core import write_json
from popnb.evaluation.claims import ANSWERS, claim_holds, test_claims
from popnb.metrics.rank_stats import group_codes

QUESTION = "question in the title"
TEN = ["number in the title", "emoji in the title", "hashtags in the title", "capitals in the title", "title under 4 words",
    "duration under 20 s", "posting at night", "posting at the weekend", "posting hour 18", "posting on monday"]
SIZES = { # creators, mean number of videos, whether few creators have most of the videos
    "15 creators": (15, 12, False), "15 creators, unequal": (15, 12, True), "40 creators": (40, 12, False),
    "150 creators": (150, 12, False)}


def drawn(effect, creators, videos, unequal, rng, varies=0.):
    "A table with a planted effect, in percent"
    size = rng.normal(0, 1, creators)
    counts = np.ceil(rng.lognormal(np.log(videos)-1, 1.4, creators)).astype(int)+1 if unequal else \
        rng.integers(2, 2*videos-1, creators)
    who = np.repeat(np.arange(creators), counts)
    n = len(who)
    asks = rng.random(n) < 1/(1+np.exp(-size[who]))
    day = rng.integers(0, 300, n)
    gain = np.log1p(effect/100)+varies*rng.normal(size=creators)
    log_views = 8+2*size[who]+.3*np.log(330-day)+.002*day+gain[who]*asks+.8*rng.standard_t(5, n)
    extra = [rng.choice(["", o], n) for o in (" 7", " 🎉", " #tip", " BIG")]
    titles = ["".join(o) for o in zip(np.where(asks, "Why so?", "So it is"), *extra)]
    start = pd.Timestamp("2025-01-01", tz="UTC")
    return pd.DataFrame({"video_id": [f"v{i}" for i in range(n)], "author": [f"c{i}" for i in who], "title": titles,
        "published_at": start+pd.to_timedelta(day*24+rng.integers(0, 24, n), "h"), "duration": rng.uniform(5, 60, n),
        "collected_at": start+pd.Timedelta(days=330), "views": np.round(np.exp(log_views))})


def usual(df):
    "Interval of the usual cluster-robust variance (CR1, G-1 degrees of freedom), in percent"
    code,x = group_codes(df["author"]),claim_holds(df, QUESTION)
    at = (df["published_at"]-df["published_at"].min()).dt.total_seconds().to_numpy()/3e7
    age = np.log1p((df["collected_at"]-df["published_at"]).dt.total_seconds().to_numpy()/86400)
    M = pd.DataFrame(np.column_stack([np.log1p(df["views"]), x, at, age]))
    M = (M-M.groupby(code).transform("mean")).to_numpy()
    X,y,k = M[:, 1:],M[:, 0],code.max()+1
    b = np.linalg.lstsq(X, y, rcond=None)[0]
    scores = np.stack([np.bincount(code, X[:, j]*(y-X@b), k) for j in range(3)], 1)
    bread = np.linalg.inv(X.T@X)
    half = t.ppf(.975, k-1)*np.sqrt((bread@scores.T@scores@bread)[0, 0]*k/(k-1)*(len(y)-1)/(len(y)-3))
    return 100*np.expm1(b[0]-half),100*np.expm1(b[0]+half)


def power(effect, shape, rounds, varies, seed):
    "Shares over simulated tables of one effect"
    rng,rows = np.random.default_rng(seed),[]
    for _ in range(rounds):
        df = drawn(effect, *shape, rng, varies)
        o = test_claims(df, QUESTION).results[0]
        bare = test_claims(df.drop(columns="author"), QUESTION).results[0]
        low,high = usual(df) if o.effect is not None else (np.nan, np.nan)
        covered = np.nan if o.effect is None else o.low <= effect <= o.high
        rows.append({a: o.answer == a for a in ANSWERS} | dict(coverage=covered,
            coverage_cr1=low <= effect <= high, agrees_without_creators=bare.answer == "agrees"))
    return {k: round(float(v), 4) for k,v in pd.DataFrame(rows).astype(float).mean().items()}


def false_alarms(shape, rounds, seed):
    "Share of tables in which any of ten claims without an effect agrees, and of those with an uncorrected p below .05"
    rng,any_,raw = np.random.default_rng(seed),0,0
    for _ in range(rounds):
        results = test_claims(drawn(0, *shape, rng), TEN).results
        any_ += any(o.answer == "agrees" for o in results)
        raw += any(o.p is not None and o.p < .05 and o.effect > 0 for o in results)
    return dict(any_agrees=any_/rounds, any_uncorrected=raw/rounds)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rounds", type=int, default=200, help="simulated tables of each effect")
    p.add_argument("--effects", type=float, nargs="+", default=[0, 10, 30, 80], help="planted effects, percent")
    p.add_argument("--varies", type=float, default=.2, help="spread of the effect over creators, log scale")
    p.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES), help="creators and videos of the tables")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--out", type=Path, default=Path(__file__).parent/"results"/"claims.json", help="JSON file")
    a = p.parse_args()
    start,result = time.time(),dict(rounds=a.rounds, varies=a.varies, seed=a.seed, power={}, ten_claims_without_effect={})
    for name in a.sizes:
        shape = SIZES[name]
        result["power"][name] = {f"{e:g} %": power(e, shape, a.rounds, a.varies, a.seed+i) for i,e in enumerate(a.effects)}
        for e,v in result["power"][name].items(): print(f"{name}, effect {e}: {v}", flush=True)
        result["ten_claims_without_effect"][name] = false_alarms(shape, a.rounds, a.seed+99)
        print(f"{name}, ten claims without effect: {result['ten_claims_without_effect'][name]}", flush=True)
    write_json(a.out, result)
    print(f"{len(a.sizes)*len(a.effects)*a.rounds:,} tables with one claim and {len(a.sizes)*a.rounds:,} with ten"
        f" in {time.time()-start:.0f} s; {a.out}")


if __name__ == "__main__": sys.exit(main())
