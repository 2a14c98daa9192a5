"""Are planted leaks found, and are clean tables left alone?

    python bench/leaks.py [--rounds 50] [--clips 50] [--rows 800] [--seed 0] [--out bench/results/leaks.json]

Six leaks are planted in simulated tables, most in several forms: the label in a column, test rows copied into the training part
under other ids, creators on both sides of a split by creator, a statistic of the label over all rows, followers counted after the
video had brought some, and clips of the test part encoded again for the training part. Written are the shares of the tables in
which the leak is found under its name. Clean are simulated tables as they are, with followers that grow (counted before each
video), with twenty columns of noise, and with clips; written is how many have any warning or blocker. `--clips` is the number of
tables with real files, 24 clips each; all others have no files.
"""
import argparse
import sys
import tempfile
import time
from pathlib import Path

import av
import numpy as np
import pandas as pd

from popnb.audit.missing import check_missing, check_missing_labels
from popnb.audit.leaks import check_order
from popnb.audit.raw_table import parse_table
from popnb.audit.split_leaks import check_split, check_split_twins
from popnb.core import write_json
from popnb.data.splits import Split, make_split
from popnb.simulation.dataset import SMALL, simulate


def alarms(table, split, **options):
    "Names of the warnings and blockers about a table and its split"
    return [f.name for f in check_split(parse_table(table), split, **options) if f.severity != "note"]


def followers(table, rng, later, rate=.02, drift=.02):
    "Followers that grow by `drift` and by a share of the views of each video, counted before or after it"
    out = np.zeros(len(table))
    for _,d in table.sort_values("published_at").groupby("author"):
        own,f = rate*d["views"].to_numpy(),d["followers"].iloc[0]
        base = f*np.exp(np.cumsum(drift*rng.exponential(size=len(d))))
        out[d.index] = np.round(base+np.cumsum(own)-(0 if later else own))
    return table.assign(followers=out)


def copied(table, split, rng):
    "Ten test rows under new ids and creators in the training part"
    rows = table[table["video_id"].isin(split.ids["test"]) & table["title"].notna()]
    rows = rows.sample(10, random_state=int(rng.integers(1e6)))
    rows = rows.assign(video_id="re-"+rows["video_id"], author="re-"+rows["author"])
    ids = split.ids | {"train": split.ids["train"]+rows["video_id"].tolist()}
    return pd.concat([table, rows], ignore_index=True), Split("column", ids)


def mixed(table, split, rng):
    "Fifteen videos of the test part exchanged with some of the training part"
    a,b = (list(rng.permutation(split.ids[p])) for p in ("train", "test"))
    ids = split.ids | {"train": b[:15]+a[15:], "test": a[:15]+b[15:]}
    return table, Split(split.how, ids, split.seed, split.options)


def forms(table, split, rng):
    "Planted leaks: (name of the finding, form, table, split)"
    y,by = np.log1p(table["views"]),table.groupby("author")["views"]
    n,log_mean = by.transform("size"),y.groupby(table["author"]).transform("mean")
    columns = {"log": y, "ten bins": pd.qcut(y, 10, labels=False), "rank with noise": y.rank()+rng.normal(0, 10, len(y)),
        "two classes": np.where(y > y.median(), "high", "low")}
    for k,v in columns.items(): yield "label_copy", k, table.assign(score=v), split
    yield "test_rows_in_training", "ten rows", *copied(table, split, rng)
    yield "group_on_both_sides", "fifteen videos", *mixed(table, split, rng)
    statistics = {"mean": by.transform("mean"), "mean of logs": log_mean, "shrunk mean": (n*log_mean+5*y.mean())/(n+5),
        "mean of the others": (n*log_mean-y)/np.maximum(n-1, 1), "median": by.transform("median"), "two digits": log_mean.round(2)}
    who,fold = table["author"].to_numpy(),rng.integers(0, 5, len(table))
    others = [y[(who == who[i]) & (fold != fold[i])] for i in range(len(y))]
    statistics["means over the other folds, shrunk"] = [(o.sum()+2*y.mean())/(len(o)+2) for o in others]
    for k,v in statistics.items(): yield "statistic_of_all_rows", k, table.assign(usual=v), split
    for rate,drift in ((.001, .02), (.005, .02), (.02, .02), (.005, .1), (.02, .1)):
        yield "future_followers", f"{rate:.1%} of the views, {drift:.0%} growth", followers(table, rng, True, rate, drift), split


def planted(rounds, rows, seed):
    "Share of the tables in which each form of each leak is found"
    found = {}
    for i in range(rounds):
        rng,table = np.random.default_rng([seed, i]),simulate(rows, seed=seed+i, media=False).table
        split = make_split(table, "group", by="author", seed=i)
        for name,form,t,s in forms(table, split, rng):
            found.setdefault(name, {}).setdefault(form, []).append(name in alarms(t, s))
    return {k: {f: round(float(np.mean(v)), 3) for f,v in d.items()} for k,d in found.items()}


def clean(rounds, rows, seed):
    "Number of clean tables with an alarm, and the alarms"
    found = {k: [] for k in ("simulated", "growing followers", "twenty columns of noise", "order and missing values")}
    for i in range(rounds):
        rng,table = np.random.default_rng([seed, i, 1]),simulate(rows, seed=seed+i, media=False).table
        split = make_split(table, "group", by="author", seed=i)
        noise = pd.DataFrame({f"x{j}": rng.normal(size=rows) if j % 2 else rng.integers(0, 5, rows) for j in range(20)})
        tables = dict(zip(found, (table, followers(table, rng, False), pd.concat([table, noise], axis=1))))
        for k,t in tables.items(): found[k] += [[k, i, *a] for a in [alarms(t, split)] if a]
        t = parse_table(table)
        rest = [f.name for f in check_order(t)+check_missing(t)+check_missing_labels(t) if f.severity != "note"]
        if rest: found["order and missing values"].append([i, *rest])
    return {k: len(v) for k,v in found.items()}, [o for v in found.values() for o in v]


def encoded_again(path, out, rng):
    "Write a clip again, smaller"
    height = int(rng.choice([96, 112, 144]))
    with av.open(str(path)) as a, av.open(str(out), "w") as b:
        stream = b.add_stream("mpeg4", rate=12)
        stream.width,stream.height,stream.bit_rate = height*5//9//2*2,height,300_000
        for frame in a.decode(video=0): b.mux(stream.encode(frame.reformat(stream.width, height, "yuv420p")))
        b.mux(stream.encode())


def clips(tables, seed, n=24):
    "Tables with clips: those in which a planted twin is found, and clean ones with an alarm"
    caught,false = 0,0
    for i in range(tables):
        rng = np.random.default_rng([seed, i, 2])
        with tempfile.TemporaryDirectory() as folder:
            s = simulate(n, Path(folder)/"clips", seed=seed+i, **SMALL, workers=1)
            split,broken = make_split(s.table, seed=i),sum(s.broken.values(), [])
            false += bool(check_split_twins(parse_table(s.table), split))
            row = s.table[s.table["video_id"].isin(split.ids["test"]+split.ids["valid"]) & ~s.table["video_id"].isin(broken)]
            again = Path(folder)/"again.mp4"
            encoded_again(row.iloc[0]["video_path"], again, rng)
            more = row.iloc[:1].assign(video_id="again", title="another title", views=7, thumbnail_path=None,
                                       video_path=str(again))
            twin = Split("column", split.ids | {"train": [*split.ids["train"], "again"]})
            caught += bool(check_split_twins(parse_table(pd.concat([s.table, more], ignore_index=True)), twin))
    return caught, false


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--rounds", type=int, default=50, help="tables without files")
    p.add_argument("--clips", type=int, default=50, help="tables with 24 clips")
    p.add_argument("--rows", type=int, default=800)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--out")
    a = p.parse_args()
    start = time.time()
    found = planted(a.rounds, a.rows, a.seed)
    false,which = clean(a.rounds, a.rows, a.seed)
    caught,twins = clips(a.clips, a.seed)
    found["near_duplicates_in_training"] = {"encoded again": round(caught/max(a.clips, 1), 3)}
    false["clips"] = twins
    for k,v in found.items(): print(k, v, flush=True)
    print("clean tables with an alarm", false, which)
    result = dict(rounds=a.rounds, clip_tables=a.clips, rows=a.rows, found=found, clean_with_alarm=false, alarms=which)
    if a.out: write_json(Path(a.out), result)
    kinds = sum(max(v.values()) >= .95 for v in found.values())
    print(f"leaks: {kinds} of {len(found)} kinds found in at least 95 % of the tables in their clearest form; "
          f"{max(false.values())} of {a.rounds} clean tables with an alarm at most; {time.time()-start:.0f} s")
    return 0 if kinds == len(found) and max(false.values()) <= .1*a.rounds else 1


if __name__ == "__main__": sys.exit(main())
