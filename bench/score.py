"""Which predictor is best on real tables, and what does it cost?

    python bench/score.py [--tables shorts daily22 tiktok] [--splits random group time] [--seeds 0 1 2 3 4]
                          [--methods hour tabular quick auto autogluon] [--autogluon PYTHON] [--work FOLDER]

Methods on the same training, validation and test rows, each in a process of its own:

- `hour`: what a good engineer writes in an hour: TF-IDF of words and characters, 128 SVD components, numbers and categories of
  the table, target means of creators out of fold, LightGBM with early stopping, averaged with a ridge regression;
- `tabular`: the system by default;
- `auto`: `popnb train auto` with `--quality` and `--budget`;
- `quick`: `Tabular(encoders=None, neighbours="auto", features="auto").fit` in Python, as the library of `autogluon` is called: no report, no
  figures, no cache;
- `autogluon`: `TabularPredictor` with `medium_quality`, in the environment of `--autogluon`, on training and validation rows.

The tables lie in the folder that POPNB_REAL_DATA names. The label is log views: of daily22 those of day 22, from what is known
before publication. Each cell (table, split, seed, method) is kept in `--work`, so that a second call goes on; predictions stay
there. bench/results/score.json gets aggregates alone: Spearman, RMSE, seconds, processor seconds, peak memory, an estimate of
energy (processor seconds times `--watts` a core), and paired differences to `tabular` over all seeds, with intervals.
"""
import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

AUTOGLUON = """
import json, resource, sys, time
import pandas as pd
from autogluon.tabular import TabularPredictor
folder, limit, cores = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
train, test = pd.read_parquet(folder + "/train.parquet"), pd.read_parquet(folder + "/test.parquet")
began,used = time.time(),time.process_time()
p = TabularPredictor("y", problem_type="regression", eval_metric="rmse", path=folder + "/ag", verbosity=0)
p.fit(train, presets="medium_quality", time_limit=limit, num_cpus=cores)
fitted,used = time.time() - began,time.process_time() - used + resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
pred = p.predict(test.drop(columns="y"))
pd.DataFrame({"prediction": pred}).to_parquet(folder + "/autogluon.parquet")
json.dump({"fit": fitted, "fit_processor": used, "best": p.model_best}, open(folder + "/autogluon.json", "w"))
"""
CORES = int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count())     # for each method the same
NOT_BEFORE = ("views", "likes", "comments", "shares", "saves", "collected_at", "age")     # of a video that is not published


def table_of(name):
    "A real table with log views to predict and nothing that is known only later"
    from popnb.core import real_data
    from popnb.data.sources import read_source
    source,path = {"shorts": ("shorts", "shorts/youtube_shorts.csv"), "daily22": ("daily", "daily22"),
        "tiktok": ("tiktok", "tiktok/trending.json")}[name]
    if (found := real_data(path)) is None: raise SystemExit(f"No {path}: set POPNB_REAL_DATA.")
    table,_ = read_source(source, found)
    if name == "daily22": table["views"] = table["day_22"]
    later = [c for c in table if c.startswith(("day_", "likes_", "comments_", "shares_"))]
    return table[table["views"].notna()].drop(columns=[*later, *(c for c in ("likes", "comments", "shares", "age", "view_bin") if c in table)])\
        .reset_index(drop=True)


def split_of(table, kind, seed):
    "A split by chance, by groups of related videos, or by time; `None` where the table has no times"
    from popnb.runs.train import choose_split
    if kind == "time" and ("published_at" not in table or table["published_at"].isna().all()): return None
    return choose_split(table, kind, seed=seed)


def raw(rows):
    "Columns of a table as other libraries take them: numbers, texts, parts of the time"
    out = rows.drop(columns=[c for c in ("video_id", *NOT_BEFORE) if c in rows])
    if "published_at" in out:
        t = pd.to_datetime(out.pop("published_at"), utc=True)
        out = out.assign(hour=t.dt.hour, weekday=t.dt.weekday, day=t.dt.dayofyear)
    if "tags" in out: out["tags"] = out["tags"].astype(object).where(out["tags"].notna(), None)
    return out


def hour(train, valid, test, y, yv):
    "An hour's work without this library"
    import lightgbm as lgb
    from scipy.sparse import hstack
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import KFold
    parts = [raw(t) for t in (train, valid, test)]
    texts = [p["title"].fillna("").astype(str).tolist() for p in parts]
    views = [TfidfVectorizer(min_df=2, sublinear_tf=True, ngram_range=(1, 2)),
        TfidfVectorizer(analyzer="char_wb", min_df=3, sublinear_tf=True, ngram_range=(2, 5), max_features=100_000)]
    tfidf = [hstack([v.fit_transform(texts[0]) for v in views]).tocsr()]
    tfidf += [hstack([v.transform(t) for v in views]).tocsr() for t in texts[1:]]
    svd = TruncatedSVD(min(128, tfidf[0].shape[0]-1, tfidf[0].shape[1]-1), random_state=0).fit(tfidf[0])
    columns = []
    for p,T,t in zip(parts, tfidf, texts):
        num = p.select_dtypes("number").astype(float)
        codes = pd.DataFrame({c: pd.Categorical(p[c], categories=parts[0][c].dropna().unique()).codes for c in p
            if p[c].dtype == object and c not in ("title", "description", "tags") and parts[0][c].nunique() < 500}, index=p.index)
        columns.append(np.c_[num.to_numpy(), codes.to_numpy(float), [len(s) for s in t], svd.transform(T)])
    if "author" in train:
        means = lambda a, b: b.map(pd.Series(y[a]).groupby(train["author"].to_numpy()[a]).mean())
        own = np.full(len(train), np.nan)
        for a,b in KFold(5, shuffle=True, random_state=0).split(own): own[b] = means(a, train["author"].iloc[b])
        every = np.arange(len(train))
        columns = [np.c_[c, o] for c,o in zip(columns, (own, means(every, valid["author"]), means(every, test["author"])))]
    best,penalty = None,None
    for alpha in (1, 3, 10, 30):
        r = Ridge(alpha).fit(tfidf[0], y)
        error = np.square(r.predict(tfidf[1])-yv).mean()
        if penalty is None or error < penalty: best,penalty = r,error
    d = lgb.Dataset(columns[0], y)
    m = lgb.train({"objective": "l2", "learning_rate": .03, "num_leaves": 31, "feature_fraction": .5, "bagging_fraction": .8,
        "bagging_freq": 1, "verbose": -1, "num_threads": CORES, "seed": 0}, d, 3000,
        valid_sets=[lgb.Dataset(columns[1], yv, reference=d)], callbacks=[lgb.early_stopping(100, verbose=False)])
    return .5*m.predict(columns[2]) + .5*best.predict(tfidf[2])


def test_score(run):
    "Spearman of the stored predictions of the test rows"
    from popnb.evaluation.prediction_files import arrays, read_predictions, rows_of_part
    from scipy.stats import spearmanr
    return float(spearmanr(*arrays(rows_of_part(read_predictions(run), "test")))[0])


class Clock:
    "Seconds by the wall and of the processor for a training; without the imports that AutoGluon's own import makes before its clock starts"
    def __init__(self):
        import scipy.stats, sklearn.feature_extraction.text, sklearn.linear_model
        self.began,self.used = time.time(),time.process_time()
    def stop(self): return {"fit": time.time()-self.began, "fit_processor": time.process_time()-self.used}


def one(a):
    "One cell: predictions of the test rows, and what they cost"
    from popnb.data.labels import make_label
    table = table_of(a.table)
    split = split_of(table, a.split, a.seed)
    train,valid,test = (table[split.rows(table, p)].reset_index(drop=True) for p in ("train", "valid", "test"))
    label = make_label("log-views").fit(train)
    y,yv,yt = (label.transform(t) for t in (train, valid, test))
    folder,more,began = Path(a.folder),{},time.time()
    if a.method == "hour":
        clock = Clock()
        p = hour(train, valid, test, y, yv)
        more = clock.stop()
    elif a.method == "tabular":
        from popnb.runs.train import train as train_run
        clock = Clock()
        run = train_run("tabular", table, folder/"run", split=split, seed=a.seed, store=a.store, n_boot=0, overwrite=True)
        more = clock.stop()
        p = run.model.predict(test)["prediction"].to_numpy()
    elif a.method == "quick":
        from popnb.models.tabular.system import Tabular
        clock = Clock()
        model = Tabular(seed=a.seed, encoders=None, neighbours="auto", features="auto").fit(train, valid, make_label("log-views"))
        more = clock.stop()
        p = model.predict(test)["prediction"].to_numpy()
    elif a.method == "auto":
        import popnb.runs.auto as steps
        from popnb.models.predictor import load
        finish = steps._finish
        def keep(job, file):
            "Test scores of the single runs, before their folders go"
            more["singles"] = {n: test_score(r) for n,r in job.runs.items()}
            return finish(job, file)
        steps._finish = keep
        clock = Clock()
        done = steps.auto(table, folder/"run", budget=a.budget, quality=a.quality, split=split, seed=a.seed, store=a.store, n_boot=0,
            **{"tabular.features": "auto"})
        more |= clock.stop()
        model = load(folder/"run")
        model.store = None
        p = model.predict(test)["prediction"].to_numpy()
        more |= {"chosen": done.chosen, "steps": done.steps[["name", "kind", "state", "seconds", "alone", "best"]].to_dict("records")}
    else:
        raw(pd.concat([train, valid], ignore_index=True)).assign(y=np.r_[y, yv]).to_parquet(folder/"train.parquet")
        raw(test).assign(y=yt).to_parquet(folder/"test.parquet")
        subprocess.run([a.autogluon, "-c", AUTOGLUON, str(folder), str(a.limit), str(CORES)], check=True, env=os.environ | {"PYTHONPATH": ""})
        p = pd.read_parquet(folder/"autogluon.parquet")["prediction"].to_numpy()
        more = json.loads((folder/"autogluon.json").read_text())
    use = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cost = {"seconds": time.time()-began, "processor_seconds": sum(u.ru_utime+u.ru_stime for u in use),
        "peak_mb": max(u.ru_maxrss for u in use)/1024, "rows": {"train": len(train), "valid": len(valid), "test": len(test)}}
    pd.DataFrame({"video_id": test["video_id"], "truth": yt, "prediction": p}).to_parquet(folder/"predictions.parquet")
    (folder/"cell.json").write_text(json.dumps(cost | more))


def cell(a, table, split, seed, method):
    "Make a cell in a process of its own, unless it is there"
    folder = Path(a.work)/f"{table}-{split}-{seed}-{method}"
    if not (folder/"cell.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        call = [sys.executable, __file__, "--one", "--table", table, "--split", split, "--seed", seed, "--method", method, "--folder", folder,
            "--store", Path(a.work)/"store", "--budget", a.budget, "--quality", a.quality, "--limit", a.limit, "--autogluon", a.autogluon or ""]
        done = subprocess.run(list(map(str, call)), capture_output=True, text=True)
        if done.returncode: print(f"{folder.name} failed: {done.stderr[-1500:]}", flush=True); return None
    return json.loads((folder/"cell.json").read_text()) | {"predictions": pd.read_parquet(folder/"predictions.parquet")}


def summary(found, watts):
    "Scores and costs of a table and split, over the seeds that all methods have"
    from popnb.metrics.bootstrap import paired
    from scipy.stats import spearmanr
    seeds = sorted(set.intersection(*(set(v) for v in found.values())))
    if not seeds: return None
    out = {"seeds": seeds, "rows": next(iter(found.values()))[seeds[0]]["rows"], "methods": {}}
    joined = {m: pd.concat([c[s]["predictions"] for s in seeds], ignore_index=True) for m,c in found.items()}
    for m,c in found.items():
        rho = [spearmanr(c[s]["predictions"]["truth"], c[s]["predictions"]["prediction"])[0] for s in seeds]
        rmse = [float(np.sqrt(np.square(c[s]["predictions"]["truth"]-c[s]["predictions"]["prediction"]).mean())) for s in seeds]
        mean = lambda k: float(np.mean([c[s][k] for s in seeds]))
        out["methods"][m] = {"spearman": float(np.mean(rho)), "spearman_each": rho, "rmse": float(np.mean(rmse)), "seconds": mean("seconds"),
            "processor_seconds": mean("processor_seconds"), "fit": mean("fit"),
            "fit_processor": mean("fit_processor"), "peak_mb": mean("peak_mb"), "energy_wh": mean("processor_seconds")*watts/3600}
        if "chosen" in c[seeds[0]]:
            single = {n: float(np.mean([c[k]["singles"][n] for k in seeds])) for n in c[seeds[0]]["singles"]
                if all(n in c[k]["singles"] for k in seeds)}
            best = max(single, key=single.get)
            out["methods"][m] |= {"chosen": [c[k]["chosen"]["how"] for k in seeds], "singles": single, "best_single": best,
                "over_best_single": float(np.mean(rho))-single[best], "over_best_each": [r-max(c[k]["singles"].values()) for k,r in zip(seeds, rho)]}
        if m != "tabular" and "tabular" in joined:
            a,b = joined[m],joined["tabular"]
            d = paired(a["truth"].to_numpy(), a["prediction"].to_numpy(), b["prediction"].to_numpy(), "srocc", a["video_id"].to_numpy())
            out["methods"][m]["over_tabular"] = {k: d[k] for k in ("difference", "low", "high")}
    return out


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--tables", nargs="+", default=["shorts", "daily22", "tiktok"])
    p.add_argument("--splits", nargs="+", default=["random", "group", "time"])
    p.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    p.add_argument("--methods", nargs="+", default=["hour", "tabular", "quick", "auto", "autogluon"])
    p.add_argument("--autogluon", default="")
    p.add_argument("--budget", default="30m")
    p.add_argument("--quality", default="balanced")
    p.add_argument("--limit", type=float, default=3600, help="seconds that AutoGluon may take")
    p.add_argument("--watts", type=float, default=15, help="of a busy core")
    p.add_argument("--work", default="score_cells")
    for k in ("table", "split", "method", "folder", "store"): p.add_argument(f"--{k}")
    p.add_argument("--seed", type=int)
    p.add_argument("--one", action="store_true")
    a = p.parse_args()
    if a.one: return one(a)
    from popnb.core import write_json
    results = {}
    for t in a.tables:
        for s in a.splits:
            if split_of(table_of(t), s, 0) is None: continue
            found = {m: {} for m in a.methods if m != "autogluon" or a.autogluon}
            for seed in a.seeds if s != "time" else a.seeds[:1]:
                for m in found:
                    if (c := cell(a, t, s, seed, m)) is not None: found[m][seed] = c
            if (r := summary(found, a.watts)) is None: continue
            results[f"{t} {s}"] = r
            print(t, s, {m: (round(v["spearman"], 4), round(v["seconds"])) for m,v in r["methods"].items()}, flush=True)
            write_json(Path(__file__).parent/"results"/"score.json", {"cores": CORES, "watts": a.watts, "budget": a.budget,
                "quality": a.quality, "tables": results})


if __name__ == "__main__": main()
