"""Does `tabular` with all columns beat a good engineer's LightGBM on tables like those of the SMP Challenge 2025?

    python bench/smp.py [--n 4500] [--seeds 0 1 2 3 4] [--splits random group time] [--auto] [--out FILE]

For each seed a simulated SMP Challenge of its own (`popnb.simulation.smp`) is written and imported by the source `smp`. On the
same training, validation and test rows (80/10/10; by creator in `group`, the latest last in `time`):

- `hour`: LightGBM on all columns as a good engineer writes it in an hour: logarithms and ratios of counts, categories, parts of
  the time, lengths of texts, TF-IDF of words and characters with SVD of each text, uses of a sound, target means of creators and
  sounds out of fold, absolute and squared error with early stopping on the validation rows, the better of both kept, three seeds;
- `plain`: `tabular` with `loss=absolute`, without further columns of the table;
- `tabular`: `tabular` with `features=all`, `loss=absolute`;
- `auto`: `popnb train auto` with `--quality fast` and the same options, with `--auto`.

The truth is `popularity`, log2(views/days) + 1. bench/results/smp.json gets the mean absolute error, MAPE in percent and Spearman
of each method, paired differences of the error to `hour` with 95 % intervals for each split over all seeds, and the smallest
error that is possible. Seconds are those of the processor.
"""
import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from timing import load, versions
from popnb.core import write_json
from popnb.data.labels import make_label
from popnb.data.sources import read_source
from popnb.metrics.bootstrap import paired
from popnb.metrics.metrics import mape
from popnb.models.predictor import load as load_run
from popnb.models.tabular.system import Tabular
from popnb.runs.auto import auto as train_auto
from popnb.runs.train import choose_split
from popnb.simulation.smp import simulate_smp

COUNTS = ("followers", "author_posts", "user_following_count", "user_likes_count", "user_digg_count", "user_heart_count",
    "user_friend_count")
KINDS = ("country", "language", "video_ratio", "video_format", "user_recommend_reason")
TEXTS = {"title": 64, "tags": 16, "user_signature": 16, "sound": 8}       # text -> SVD components


def numbers(t):
    "Counts as logarithms, their ratios, sizes, lengths and time"
    log = np.log1p(t[list(COUNTS)].astype(float))
    out = log.assign(likes_per_video=log["user_heart_count"]-log["author_posts"], fame=log["followers"]-log["user_following_count"],
        likes_per_follower=log["user_heart_count"]-log["followers"], width=t["width"], height=t["height"],
        shape=t["width"]/t["height"], duration=np.log1p(t["duration"]), music=t["music_duration"],
        own_sound=t["sound"].eq("original sound").astype(float))
    at = t["published_at"].dt
    out = out.assign(hour=at.hour, weekday=at.day_of_week, day=at.day_of_year, month=at.year*12+at.month)
    for c in TEXTS:
        text = t[c].astype(object).where(t[c].notna(), "").astype(str)
        out[f"{c}_words"],out[f"{c}_chars"] = text.str.split().str.len(),text.str.len()
    return out.assign(tag_count=t["tags"].astype(object).fillna("").astype(str).str.split(",").map(lambda o: len([x for x in o if x])))


def target_means(known, y, rows, prior=5.):
    "Shrunk mean label of each value"
    g = pd.Series(y-y.mean()).groupby(known).agg(["sum", "size"])
    return (rows.map(g["sum"])/(rows.map(g["size"])+prior)).to_numpy(float)


def texts(parts, column, k):
    "SVD of the words and characters of a text"
    from scipy.sparse import hstack
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    read = [p[column].astype(object).where(p[column].notna(), "").astype(str).tolist() for p in parts]
    views = [TfidfVectorizer(min_df=3, sublinear_tf=True, ngram_range=(1, 2)),
        TfidfVectorizer(analyzer="char_wb", min_df=3, sublinear_tf=True, ngram_range=(3, 4), max_features=30_000)]
    X = hstack([v.fit_transform(read[0]) for v in views]).tocsr()
    svd = TruncatedSVD(min(k, X.shape[1]-1), random_state=0).fit(X)
    return [svd.transform(hstack([v.transform(r) for v in views]).tocsr()) for r in read]


def hour(train, valid, test, y, yv):
    "A LightGBM on all columns, written without this library"
    import lightgbm as lgb
    from sklearn.model_selection import KFold
    parts = [train, valid, test]
    X = [numbers(p) for p in parts]
    for c in KINDS:
        known = train[c].dropna().unique()
        for p,x in zip(parts, X): x[c] = pd.Categorical(p[c], categories=known)
    for c in ("author", "sound"):
        uses,own = train[c].value_counts(),np.full(len(train), np.nan)
        for a,b in KFold(5, shuffle=True, random_state=0).split(own):
            own[b] = target_means(train[c].to_numpy()[a], y[a], train[c].iloc[b])
        for p,x in zip(parts, X): x[f"{c}_uses"] = p[c].map(uses).fillna(0).to_numpy()
        for x,v in zip(X, (own, *(target_means(train[c].to_numpy(), y, p[c]) for p in (valid, test)))): x[f"{c}_mean"] = v
    themes = {c: texts(parts, c, k) for c,k in TEXTS.items()}
    for i,x in enumerate(X):
        frames = [pd.DataFrame(v[i], x.index).add_prefix(f"{c}_") for c,v in themes.items()]
        X[i] = pd.concat([x, *frames], axis=1)
    d = lgb.Dataset(X[0], y)
    held,best,found = lgb.Dataset(X[1], yv, reference=d),np.inf,None
    for objective in ("l1", "l2"):
        models = [lgb.train({"objective": objective, "metric": "l1", "learning_rate": .03, "num_leaves": 31, "min_data_in_leaf": 20,
            "feature_fraction": .5, "bagging_fraction": .8, "bagging_freq": 1, "verbose": -1, "num_threads": 1, "seed": s}, d, 3000,
            valid_sets=[held], callbacks=[lgb.early_stopping(150, verbose=False)]) for s in range(3)]
        p = [np.mean([m.predict(x) for m in models], 0) for x in X[1:]]
        if (error := np.abs(p[0]-yv).mean()) < best: best,found = error,p[1]
    return found


def tabular(train, valid, test, label, seed, features):
    return Tabular(seed=seed, features=features, loss="absolute").fit(train, valid, label).predict(test)["prediction"].to_numpy()


def auto(table, split, test, folder, seed):
    train_auto(table, folder, "20m", "fast", label="column=popularity", split=split, seed=seed, systems="tabular", features="all",
        loss="absolute", n_boot=0)
    return load_run(folder).predict(test)["prediction"].to_numpy()


def cell(table, kind, seed, with_auto):
    "Truth, predictions and processor seconds of the test rows of one split"
    split = choose_split(table, kind, seed=seed, **({"by": ["author"]} if kind == "group" else {}))
    rows = [table[split.rows(table, p)].reset_index(drop=True) for p in ("train", "valid", "test")]
    label = make_label("column", column="popularity").fit(rows[0])
    y,yv,truth = (label.transform(r) for r in rows)
    blind = rows[2].drop(columns="popularity")
    methods = {"hour": lambda: hour(*rows[:2], blind, y, yv),
        "plain": lambda: tabular(*rows[:2], blind, label, seed, None), "tabular": lambda: tabular(*rows[:2], blind, label, seed, "all")}
    if with_auto: methods["auto"] = lambda: auto(table, split, blind, Path(tempfile.mkdtemp())/"run", seed)
    found,seconds = {},{}
    for name,f in methods.items():
        start = time.process_time()
        found[name] = f()
        seconds[name] = time.process_time()-start
    return truth, rows[2], found, seconds


def scores(truth, p):
    return {"mae": float(np.abs(truth-p).mean()), "mape": float(mape(truth, p)), "srocc": float(spearmanr(truth, p)[0])}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--n", type=int, default=4500, help="posts of each simulated set")
    p.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2, 3, 4])
    p.add_argument("--splits", nargs="*", default=["random", "group", "time"], choices=["random", "group", "time"])
    p.add_argument("--auto", action="store_true", help="also popnb train auto --quality fast")
    p.add_argument("--out", type=Path, default=Path(__file__).parent/"results"/"smp.json")
    a = p.parse_args()
    cells = {k: [] for k in a.splits}
    for seed in a.seeds:
        world = simulate_smp(a.n, seed=seed)
        table,_ = read_source("smp", world.folder)
        known = world.truth.set_index("pid")
        for kind in a.splits:
            truth,test,found,seconds = cell(table, kind, seed, a.auto)
            who = [f"{seed} {u}" for u in test["author"]]
            cells[kind].append((truth, known.loc[test["video_id"], "score"].to_numpy(), found, seconds, who))
            print(seed, kind, {k: round(float(np.abs(truth-v).mean()), 4) for k,v in found.items()},
                {k: round(v) for k,v in seconds.items()}, flush=True)
    out = {}
    for kind,rows in cells.items():
        truth,best = (np.concatenate([r[i] for r in rows]) for i in (0, 1))
        found = {k: np.concatenate([r[2][k] for r in rows]) for k in rows[0][2]}
        who = np.array([u for r in rows for u in r[4]])
        against = {k: paired(truth, found[k], found["hour"], "mae", who) for k in found if k != "hour"}
        out[kind] = {"rows": len(truth), "possible": scores(truth, best), "scores": {k: scores(truth, v) for k,v in found.items()},
            "minus_hour": {k: {f: d[f] for f in ("difference", "low", "high")} for k,d in against.items()},
            "seeds": [{k: float(np.abs(r[0]-v).mean()) for k,v in r[2].items()} for r in rows],
            "seconds": {k: float(np.median([r[3][k] for r in rows])) for k in rows[0][3]}}
        print(kind, {k: round(v["mae"], 4) for k,v in out[kind]["scores"].items()}, "possible", round(out[kind]["possible"]["mae"], 4),
            {k: [round(v[f], 4) for f in v] for k,v in out[kind]["minus_hour"].items()})
    write_json(a.out, {"posts": a.n, "seeds": a.seeds, "splits": out, "load": load(), "versions": versions(["lightgbm", "numpy", "scikit-learn"])})


if __name__ == "__main__": main()
