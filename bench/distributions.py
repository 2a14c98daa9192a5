"""Do predictive distributions hold what they promise, and are they sharper than simpler ones?

    python bench/distributions.py [--part tables] [--tables simulated shorts daily22 tiktok] [--data ../shared/data]
                                  [--rounds 1] [--seconds 3600] [--seed 0] [--out bench/results/distributions.json]
    python bench/distributions.py --part curves [--rounds 10]

Part `tables`: the `tabular` system is trained with related rows kept apart (creators, and nearly equal titles), in five
folds, each of which is the test part once, and with several seeds. Around its predictions of the test rows stand

  validation       the distribution that `popnb predict` gives: residuals of the validation rows, by size of the creator,
                   divided by the difficulty of the row
  plain            the same without size and difficulty
  folds            the distribution of `popnb predict --calibration`: residuals of a cross-validation within the rows that
                   are not in the test part (tables below --small rows)
  quantile trees   LightGBM with the quantile loss, one model a level, on the same columns and the prediction of the linear
                   model, stopped early on the same validation rows
  normal           a normal error of constant width, its deviation from the same validation rows
  normal, folds    the same from the residuals of the cross-validation

All are scored on the same rows by their quantiles at 21 levels: CRPS is twice the mean pinball loss over the levels .05 to
.95. Errors are standard errors over creators (rows of several seeds averaged first), and between folds. Without the data
folder only the simulated table is measured.

Part `curves`: a tiny `smtpd` model of simulated curves, trained for seconds; the share of test curves of creators never seen
that lie in the band of level .8 on all 30 days at once.
"""
import argparse
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import norm

from popnb.core import read_json, write_json
from popnb.data import daily_counts, published, readers   # noqa: F401: they register their sources
from popnb.data.labels import make_label
from popnb.data.sources import read_source
from popnb.data.splits import make_split
from popnb.evaluation.distributions import fit_distribution
from popnb.evaluation.prediction_files import arrays, distribution_of, read_predictions, row_conditions, rows_of_part
from popnb.metrics.rank_stats import group_codes
from popnb.models.predictor import create
from popnb.runs.train import rows_of, train
from popnb.simulation.dataset import simulate

LEVELS = np.r_[.025, np.arange(1, 20)/20, .975]
INTERVALS = {"50": (5, 15), "80": (2, 18), "95": (0, 20)}     # level in percent -> positions of its ends in `LEVELS`
FILES = {"shorts": ("shorts", "shorts/youtube_shorts.csv"), "daily22": ("daily", "daily22"),
    "tiktok": ("tiktok", "tiktok/trending.json")}
OPTIONS = {"simulated": dict(inputs=["title", "creator", "time", "category"]), "shorts": dict(inputs=["title"]),
    "daily22": dict(inputs=["title", "creator", "time", "category"], age="input"), "tiktok": dict(inputs=["title", "time"])}
APART = {"simulated": ["author"], "shorts": ["near_title"], "daily22": ["author", "near_title"],
    "tiktok": ["author", "near_title"]}


def load_table(name, data, seed, rows=3000):
    "A table with `views` on the last day, and with followers where creators have them"
    if name == "simulated": return simulate(rows, media=False, seed=seed).table
    table,_ = read_source(FILES[name][0], Path(data)/FILES[name][1])
    if name != "daily22": return table
    table = table.assign(views=table["day_22"], collected_at=pd.Timestamp("2021-05-21", tz="UTC"))
    return table[table["views"].notna()].reset_index(drop=True)


def fitted(name, table, split, seed):
    "The system, fitted on the training rows, and the rows of the three parts"
    parts = {p: rows_of(table, split, p) for p in split.ids}
    model = create("tabular", seed=seed, encoders=None, **OPTIONS[name])
    model.keep_rows = True
    return model.fit(parts["train"], parts["valid"], make_label("log-views")),parts


def conditions(preds, rows):
    "Followers and difficulty of predicted rows, as `popnb predict` uses them"
    out = {}
    if "followers" in rows and rows["followers"].notna().any(): out["size"] = rows["followers"].to_numpy(float)
    if "difficulty" in preds: out["difficulty"] = preds["difficulty"].to_numpy(float)
    return out


def both(a, b):
    "Conditions that validation rows and new rows have"
    return {k: a[k] for k in a if k in b},{k: b[k] for k in b if k in a}


def crossed(name, rows, new, folds, seed):
    "Truths, predictions and conditions of all rows by models that have not seen them"
    out = []
    for k in range(folds):
        split = make_split(rows, "kfold", seed=seed, folds=folds, fold=k, by=APART[name])
        model,parts = fitted(name, rows, split, seed)
        preds = model.predict(parts["test"])
        have = conditions(preds, parts["test"])
        n = len(preds)
        out.append(pd.DataFrame({"truth": model.label.transform(parts["test"]), "pred": preds["prediction"],
            "size": have.get("size", np.full(n, np.nan)), "difficulty": have.get("difficulty", np.ones(n))}))
    return pd.concat(out, ignore_index=True)


def quantile_trees(model, parts, seed):
    "Quantiles `(n, levels)` of the test rows by LightGBM models of the quantile loss on the system's columns"
    import lightgbm as lgb
    def columns(df):
        X = model.matrix(df)[0]
        return np.c_[X, model.line.predict(X)]
    f = model.fitted
    params = {"objective": "quantile", "metric": "quantile", "learning_rate": .03, "num_leaves": 15, "lambda_l2": 5.,
        "min_data_in_leaf": int(np.clip(len(f.y)//40, 3, 20)), "feature_fraction": .4, "bagging_fraction": .8,
        "bagging_freq": 1, "max_bin": 127, "seed": seed, "num_threads": 1, "verbose": -1}
    train = lgb.Dataset(np.c_[f.X, model.line.out_of_fold], f.y, params=params, free_raw_data=False)
    valid = lgb.Dataset(columns(parts["valid"]), f.yv, reference=train, free_raw_data=False)
    X,out = columns(parts["test"]),[]
    for level in LEVELS:
        found = lgb.train(params | {"alpha": float(level)}, train, 3000, valid_sets=[valid],
            callbacks=[lgb.early_stopping(100, verbose=False)])
        out.append(found.predict(X, num_threads=1, num_iteration=found.best_iteration))
    return np.sort(np.stack(out, 1), 1)


def methods(name, table, split, seed, small):
    "Method -> quantiles of the test rows, and their truths and rows"
    model,parts = fitted(name, table, split, seed)
    (pv,pt),(yv,yt) = ([f(parts[p]) for p in ("valid", "test")] for f in (model.predict, model.label.transform))
    v,t = pv["prediction"].to_numpy(),pt["prediction"].to_numpy()
    a,b = both(conditions(pv, parts["valid"]), conditions(pt, parts["test"]))
    constant = lambda r: t[:, None]+np.std(r, ddof=1)*norm.ppf(LEVELS)
    out = {"validation": fit_distribution(yv, v, **a).quantiles(t, LEVELS, **b),
        "plain": fit_distribution(yv, v).quantiles(t, LEVELS), "quantile trees": quantile_trees(model, parts, seed),
        "normal": constant(yv-v)}
    if len(table) <= small:
        rows = pd.concat([parts["train"], parts["valid"]], ignore_index=True)
        o = crossed(name, rows, parts["test"], 5, seed+100)
        a,b = both({k: o[k].to_numpy() for k in ("size", "difficulty") if o[k].nunique() > 1}, b)
        out["folds"] = fit_distribution(o["truth"], o["pred"], **a).quantiles(t, LEVELS, **b)
        out["normal, folds"] = constant(o["truth"]-o["pred"])
    return out,yt,parts["test"],yv-v,t


def scores(Q, y):
    "Scores of each row by name"
    e = y[:, None]-Q
    pinball = np.maximum(LEVELS*e, (LEVELS-1)*e)
    out = {"crps": 2*pinball[:, 1:-1].mean(1)} | {f"pinball {p:g}": pinball[:, int(20*p)] for p in (.1, .5, .9)}
    for k,(i,j) in INTERVALS.items():
        out[f"coverage {k}"] = ((Q[:, i] <= y) & (y <= Q[:, j])).astype(float)
        out[f"width {k}"] = Q[:, j]-Q[:, i]
    return out


def error_of_mean(x, group):
    "Mean and its standard error over groups"
    code = group_codes(group)
    sums = np.bincount(code, x-x.mean())
    return float(x.mean()),float(np.sqrt((sums**2).sum())/len(x))


def measure(name, a, start):
    "Scores of all methods on one table"
    rows,rounds,gaps = [],0,[]
    for seed in range(a.seed, a.seed+a.rounds[name]):
        table = load_table(name, a.data, seed, a.rows)
        for fold in range(5):
            split = make_split(table, "kfold", seed=seed, folds=5, fold=fold, by=APART[name])
            found,y,test,valid,t = methods(name, table, split, seed, a.small)
            gaps.append(((y-t).std()/valid.std()))
            group = test["author"] if "author" in test else test["title"]
            followers = test["followers"].to_numpy(float) if "followers" in test else np.nan
            about = pd.DataFrame({"video": test["video_id"].astype(str), "group": group.astype(str), "followers": followers,
                "fold": f"{seed}.{fold}"})
            if name == "simulated": about[["video", "group"]] = about[["video", "group"]].add(f" {seed}")
            rows += [about.assign(method=k, **scores(Q, y)) for k,Q in found.items()]
            print(f"{name} {seed}.{fold}: {len(test)} test rows, {time.time()-start:.0f} s", flush=True)
        rounds += 1
        if time.time()-start > a.seconds: break
    return summary(pd.concat(rows, ignore_index=True)) | {"rounds": rounds, "test_error_over_validation_error":
        float(np.mean(gaps))}


def summary(rows):
    "Means with standard errors, coverage by quarter of followers, and paired differences of CRPS"
    metrics = [c for c in rows if c.split()[0] in ("crps", "pinball", "coverage", "width")]
    edges = np.nanquantile(rows["followers"], [.25, .5, .75]) if rows["followers"].notna().any() else []
    out,crps = {},{}
    for k,r in rows.groupby("method", sort=False):
        of = r.groupby("video").agg(dict.fromkeys(metrics, "mean") | {"group": "first", "followers": "first"})
        folds = r.groupby("fold")[metrics].mean()
        value = {}
        for m in metrics:
            mean,se = error_of_mean(of[m].to_numpy(), of["group"].to_numpy())
            value[m] = {"value": mean, "se": se, "se_folds": float(folds[m].std(ddof=1)/np.sqrt(len(folds)))}
        quarter = np.where(of["followers"].isna(), -1, np.searchsorted(edges, of["followers"])) if len(edges) else []
        value["by_followers"] = [{"n": int((quarter == q).sum())} | {f"{what} {l}": error_of_mean(
            of.loc[quarter == q, f"{what} {l}"].to_numpy(), of.loc[quarter == q, "group"].to_numpy()) for l in INTERVALS
            for what in ("coverage", "width")} for q in range(4)] if len(edges) else []
        out[k],crps[k] = value,of[["crps", "group"]]
    against = {}
    for k in [m for m in ("validation", "plain", "folds") if m in crps]:
        for o in [m for m in ("quantile trees", "normal", "normal, folds") if m in crps]:
            d = crps[k]["crps"]-crps[o]["crps"].reindex(crps[k].index)
            mean,se = error_of_mean(d.to_numpy(), crps[k]["group"].to_numpy())
            against[f"{k} − {o}"] = {"value": mean, "low": mean-1.96*se, "high": mean+1.96*se}
    n = rows["video"].nunique()
    return {"rows": n, "edges": [float(e) for e in edges], "methods": out, "crps_difference": against}


def band(seed, rows, level, folder):
    "Shares of test curves inside the band on all days, and inside intervals of single days, of one trained run"
    table = simulate(rows, media=False, seed=seed).table
    train("smtpd", table, folder, label="views-per-day", preset="tiny", inputs=["numbers"], beside=[], n_boot=0, seed=seed,
        split="group", split_options={"sizes": (.4, .3, .3)}, training={"epochs": 2}, store=folder.parent/"store")
    preds = read_predictions(folder)
    d,why = distribution_of(preds, "sequence")
    if d is None: raise SystemExit(why)
    test = rows_of_part(preds, "test")
    truth,pred = arrays(test)
    lower,upper = d.interval(pred, level, **row_conditions(test))
    inside = ((lower <= truth) & (truth <= upper) | np.isnan(truth)).all(1)
    known = [r[~np.isnan(r)] for r in d.residuals.T]
    days = [fit_distribution(r, np.zeros(len(r))).interval(p, level) for r,p in zip(known, pred.T)]
    single = np.stack([(l <= t) & (t <= u) | np.isnan(t) for (l,u),t in zip(days, truth.T)], 1).all(1)
    return pd.DataFrame({"round": seed, "author": test["author"]+f" {seed}", "band": inside, "single days": single,
        "width": (upper-lower).mean(1), "calibration": d.n})


def curves(a):
    "Coverage of whole curves over several runs"
    found = []
    for seed in range(a.seed, a.seed+(a.rounds or 10)):
        with tempfile.TemporaryDirectory() as folder: found.append(band(seed, a.rows, .8, Path(folder)/"run"))
        print(f"curves {seed}: {len(found[-1])} test curves, {found[-1]['band'].mean():.3f} in the band", flush=True)
    f,out = pd.concat(found, ignore_index=True),{"level": .8, "curves": 0}
    for k in ("band", "single days"):
        mean,se = error_of_mean(f[k].to_numpy(float), f["author"].to_numpy())
        each = f.groupby("round")[k].mean()
        out[k] = {"value": mean, "se": se, "se_folds": float(each.std(ddof=1)/np.sqrt(len(each)))}
    rows = f.groupby("round")["calibration"].first().mean()
    return out | {"curves": len(f), "runs": len(found), "calibration_rows": float(rows), "width": float(f["width"].mean())}


def keep(path, found):
    "Add results to the JSON file"
    stored = read_json(path) if path.is_file() else {}
    write_json(path, stored | found | {"tables": stored.get("tables", {}) | found.get("tables", {})})


def show(name, found):
    "Print the scores of one table"
    for k,m in found["methods"].items():
        text = "  ".join(f"{c} {m[f'coverage {c}']['value']:.3f}±{m[f'coverage {c}']['se']:.3f}" for c in INTERVALS)
        print(f"{name:10}{k:16} CRPS {m['crps']['value']:.4f}  {text}  width of 80 {m['width 80']['value']:.2f}", flush=True)
    for k,d in found["crps_difference"].items(): print(f"{name:10}{k:32}{d['value']:+.4f} ({d['low']:+.4f} to {d['high']:+.4f})")


ROUNDS = {"simulated": 1, "shorts": 1, "daily22": 3, "tiktok": 8}     # seeds, each with five folds

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--part", choices=("tables", "curves"), default="tables")
    p.add_argument("--tables", nargs="+", choices=list(APART), default=list(APART))
    p.add_argument("--data", type=Path, default=Path(__file__).parents[2]/"shared"/"data", help="folder of the real tables")
    p.add_argument("--rounds", type=int, help=f"seeds of each table; by default {ROUNDS}, and 10 runs of curves")
    p.add_argument("--rows", type=int, help="rows of a simulated table; by default 3000, and 2000 for curves")
    p.add_argument("--small", type=int, default=4000, help="rows up to which a cross-validation calibrates, too")
    p.add_argument("--seconds", type=float, default=3600, help="start no further seed of a table after that time")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--out", type=Path, default=Path(__file__).parent/"results"/"distributions.json", help="JSON file")
    a = p.parse_args()
    a.rows = a.rows or (2000 if a.part == "curves" else 3000)
    warnings.simplefilter("ignore")
    start = time.time()
    if a.part == "curves":
        found = curves(a)
        keep(a.out, {"curves": found})
        print(f"{found['curves']:,} curves of {found['runs']} runs: {found}; {a.out}")
        return
    a.rounds,seen = {k: a.rounds or ROUNDS[k] for k in APART},0
    for name in a.tables:
        if name != "simulated" and not (a.data/FILES[name][1]).exists():
            print(f"{name}: no {a.data/FILES[name][1]}, left out")
            continue
        found = measure(name, a, start)
        seen += found["rows"]
        keep(a.out, {"tables": {name: found}})
        show(name, found)
    print(f"{seen:,} test rows in {time.time()-start:.0f} s; {a.out}")


if __name__ == "__main__": sys.exit(main())
