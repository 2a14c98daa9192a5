"""How often does `popnb what-if` choose right, and how often does it say "cannot tell" where there is nothing to tell?

    python bench/what_if.py [--rounds 20] [--seconds 600] [--scale 1] [--seed 0] [--out bench/results/what_if.json]
    python bench/what_if.py --media [--rounds 6] [--out FILE]
    python bench/what_if.py --titles 50 [--rounds 20] [--out FILE]
    python bench/what_if.py --table videos.parquet [--seed 0] [--out FILE]

In each simulated table a question in the title and the evening as posting hour add a planted effect to the logarithm of
views, or single words do, or nothing does. A model is trained, fitted again eight times, and asked about new videos of
its creators: with and without the question, other words, evening or morning, two hours of the day. With --media, views
depend on the colour of the thumbnail and the brightness of the first three seconds, or on nothing; asked are two
thumbnails, and whether to cut the first three seconds off. Written are the share of right choices where the true gap
exceeds the width of the interval (and half of it), the share of right ones among the choices that were made, the share
of "cannot tell" where there is no gap, and the coverage of the 95 % interval; intervals of these shares are over
tables. With --titles, files of so many titles, half of them questions: how many of each half are called worse than the
best. With --table, a real table: how often the estimated effects of title, description, hour and duration have the sign
of the observed differences on held-out pairs of the same creator; for a table without creators, of titles on held-out
pairs of similar title.
"""
import argparse
import sys
import tempfile
import time
import warnings
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import t

from popnb.core import InputError, write_json
from popnb.data.table import read_table
from popnb.runs.train import train
from popnb.simulation.clips import ClipSpec, thumbnail, write_clip
from popnb.runs.what_if import ContrastModel, swap_test, take_fields

SYLLABLES = "lan tor sif pek dum wog".split()
WORDS = np.array([a+b for a in ("ba", "ko", "mi", "ne", "ru") for b in SYLLABLES])
START = pd.Timestamp("2025-01-01", tz="UTC")
WORLDS = {"question and evening": (.6, .5, 0.), "single words": (0., 0., .15), "no effects": (0., 0., 0.)}
FAST = dict(inputs=["title", "time", "creator"], members=1, rounds=300, patience=30)
MEDIA_WORLDS = {"thumbnail and opening": (.6, .5), "no media effects": (0., 0.)}
MEDIA_FAST = FAST | {"inputs": ["video", "thumbnail"]}
POOL = 96          # clips and pictures that the videos of a table share


def title(rng): return " ".join(rng.choice(WORDS, 4, replace=False))


def drawn(rng, question, evening, words=0., creators=60, videos=20, noise=.6):
    "A table with planted effects on log views, and the effect of each word"
    effect = dict(zip(WORDS, words*rng.normal(size=len(WORDS))))
    n = creators*videos
    who,asks,hour = np.repeat(np.arange(creators), videos), rng.random(n) < .5, rng.integers(0, 24, n)
    late = (hour >= 18) & (hour < 22)
    titles = [title(rng) for _ in range(n)]
    y = 7+rng.normal(size=creators)[who]+question*asks+evening*late+noise*rng.normal(size=n)+worth(titles, effect)
    at = START+pd.to_timedelta(rng.integers(0, 300, n)*24+hour, "h")
    return pd.DataFrame({"video_id": [f"v{i}" for i in range(n)], "author": [f"c{i}" for i in who],
        "title": [o+"?"*int(a) for o,a in zip(titles, asks)], "published_at": at, "views": np.round(np.exp(y))}),effect


def worth(titles, effect): return np.array([sum(effect[w] for w in o.split()) for o in titles])


def questions(rng, question, evening, effect):
    "Kind -> two variants and the true effect of the second against the first"
    a,b = title(rng),title(rng)
    other = "?" if rng.random() < .5 else ""
    return {"question or not": ({"A": {"title": a}, "B": {"title": a+"?"}}, question),
        "other words": ({"A": {"title": a+other}, "B": {"title": b+other}},
            float(np.subtract(*worth([b, a], effect)))),
        "evening or morning": ({"A": {"hour": 9}, "B": {"hour": 20}}, evening),
        "two hours of the day": ({"A": {"hour": int(rng.integers(0, 9))}, "B": {"hour": int(rng.integers(9, 18))}}, 0.)}


def painted(first, rest, until):
    "Painter of a clip: luma is changed by `first` before frame `until`, by `rest` from then on"
    def paint(pixels, index):
        luma = pixels[:, :2*pixels.shape[1]//3]
        add = np.where(index < until, first, rest)[:, None, None]
        luma[:] = np.clip(luma+add, 16, 235).astype(np.uint8)
    return paint


def pool(folder, seed, name="old", n=POOL):
    "Clips of 4 to 12 s with bright or dark first three seconds and rest, and grey or coloured pictures"
    rng,rows = np.random.default_rng((seed, n)),[]
    for k in range(n):
        first,rest,colour = k % 2,k//2 % 2,k//4 % 2
        clip = ClipSpec(seed=int(rng.integers(2**31)), frames=int(rng.integers(40, 121)), fps=10, size=(64, 48), gop=10,
            at=float(rng.uniform(0, 20)), loudness=None, colour=float(rng.uniform(.2, .8)), hue=float(rng.random()),
            speed=float(rng.uniform(.05, .3)))
        light = (35*(2*o-1)+rng.normal(0, 8) for o in (first, rest))
        video,picture = write_clip(clip, folder/f"{name}{k}.mp4", paint=painted(*light, 30)),folder/f"{name}{k}.jpg"
        hue,brightness = float(rng.random()),float(rng.uniform(.3, .7))
        thumbnail(replace(clip, colour=.85 if colour else .15, hue=hue, brightness=brightness)).save(picture)
        rows.append(dict(video=str(video), picture=str(picture), first=first, rest=rest, colour=colour,
            long=clip.duration >= 7))
    return pd.DataFrame(rows)


def filmed(rng, media, thumb, opening, creators=50, videos=16, noise=.6):
    "A table whose log views depend on the colour of the thumbnail and the brightness of the first three seconds"
    n = creators*videos
    who,a,b = np.repeat(np.arange(creators), videos),rng.integers(len(media), size=n),rng.integers(len(media), size=n)
    effect = opening*media["first"].to_numpy()[a]+thumb*media["colour"].to_numpy()[b]
    y = 7+rng.normal(size=creators)[who]+effect+noise*rng.normal(size=n)
    return pd.DataFrame({"video_id": [f"v{i}" for i in range(n)], "author": [f"c{i}" for i in who],
        "video_path": media["video"].to_numpy()[a], "thumbnail_path": media["picture"].to_numpy()[b],
        "views": np.round(np.exp(y))})


def media_questions(rng, media, thumb, opening):
    "Kind -> video, two variants and the true effect of the second against the first"
    def one(**of):
        fit = np.all([media[k] == v for k,v in of.items()], axis=0)
        return media[fit].sample(1, random_state=rng).iloc[0]
    same = int(rng.integers(2))
    grey,coloured = one(colour=0),one(colour=1)
    x,y = media[media["colour"] == same].sample(2, random_state=rng)["picture"]
    dull,even = one(first=0, rest=1, long=True)["video"],one(first=same, rest=same, long=True)["video"]
    cut = {"A": {}, "B": {"trim": "0:03"}}
    shown = {"A": {"thumbnail": grey.picture}, "B": {"thumbnail": coloured.picture}}
    return {"grey or coloured thumbnail": (dull, shown, thumb),
        "two thumbnails of a kind": (dull, {"A": {"thumbnail": x}, "B": {"thumbnail": y}}, 0.),
        "first three seconds are dark": (dull, cut, opening), "first three seconds like the rest": (even, cut, 0.)}


def asked_once(model, world, seed, kind, base, variants, truth):
    "Row of one answer"
    r = model.ask(base, variants).pairs.iloc[0]
    low,high = -r.high,-r.low                  # of B against A
    return dict(world=world, table=f"{world} {seed}", kind=kind, gap=abs(truth), half=(high-low)/2,
        right=r.answer == ("B" if truth > 0 else "A"), told=r.answer != "cannot tell", covered=low <= truth <= high)


def answers(name, seed, asked, scale):
    "Rows of answers of one simulated table"
    rng,rows = np.random.default_rng((seed, *map(ord, name[:3]))),[]
    effects = [o*scale for o in WORLDS[name]]
    with tempfile.TemporaryDirectory() as d:
        df,words = drawn(rng, *effects)
        run = train("tabular", df, Path(d)/"run", n_boot=0, encoders=None, store=Path(d)/"store", **FAST)
        model = ContrastModel(run.folder, df, store=Path(d)/"store")
        for k in range(asked):
            base = pd.DataFrame({"video_id": ["new"], "author": [f"c{rng.integers(60)}"], "title": [title(rng)],
                "published_at": [START+pd.Timedelta(days=int(rng.integers(300)))]})
            for kind,(variants,truth) in questions(rng, *effects[:2], words).items():
                rows.append(asked_once(model, name, seed, kind, base, variants, truth))
    return rows


def media_answers(name, seed, asked, scale):
    "Rows of answers of one simulated table of clips and thumbnails"
    rng,rows = np.random.default_rng((seed, *map(ord, name[:3]))),[]
    effects = [o*scale for o in MEDIA_WORLDS[name]]
    with tempfile.TemporaryDirectory() as d:
        (Path(d)/"media").mkdir()
        media = pool(Path(d)/"media", seed)
        df = filmed(rng, media, *effects)
        run = train("tabular", df, Path(d)/"run", n_boot=0, encoders=None, store=Path(d)/"store", **MEDIA_FAST)
        model = ContrastModel(run.folder, df, store=Path(d)/"store")
        new = pool(Path(d)/"media", seed, "new", 24)
        for k in range(asked):
            for kind,(video,variants,truth) in media_questions(rng, new, *effects).items():
                base = pd.DataFrame({"video_id": ["new"], "author": [f"c{rng.integers(50)}"], "video_path": [video],
                    "thumbnail_path": [new["picture"].iloc[0]]})
                rows.append(asked_once(model, name, seed, kind, base, variants, truth))
    return rows


def share(frame, column):
    "Share, its 95 % interval over tables (jackknife), and counts"
    if not len(frame): return dict(share=None, n=0)
    g = frame.groupby("table")[column].agg(["sum", "count"]).astype(float)
    s,n,k = g["sum"].sum(),g["count"].sum(),len(g)
    out = dict(share=round(float(s/n), 4), n=int(n), tables=k)
    if k > 1:
        left = (s-g["sum"])/(n-g["count"])
        half = t.ppf(.975, k-1)*np.sqrt((k-1)/k*((left-s/n)**2).sum())
        out |= dict(low=round(max(float(s/n-half), 0), 4), high=round(min(float(s/n+half), 1), 4))
    return out


def choices(g):
    "Shares of right choices among questions with a true gap"
    return {"right_where_gap_exceeds_width": share(g[2*g["half"] < g["gap"]], "right"),
        "right_where_gap_exceeds_half_width": share(g[g["half"] < g["gap"]], "right"),
        "right_among_choices": share(g[g["told"]], "right")}


def summary(rows):
    "Shares of each kind of question in each world"
    df,out = pd.DataFrame(rows),{}
    df["silent"] = ~df["told"]
    for (world,kind),g in df.groupby(["world", "kind"], sort=False):
        found = {"coverage": share(g, "covered"), "cannot_tell": share(g, "silent"),
            "median_half_width": round(float(g["half"].median()), 3)}
        if g["gap"].any(): found |= choices(g)
        out.setdefault(world, {})[kind] = found
    return out | {"all": {"cannot_tell_without_gap": share(df[df["gap"] == 0], "silent")} | choices(df[df["gap"] > 0])}


def ordered(seed, n):
    "Row of answers to a file of titles, of one simulated table"
    rng = np.random.default_rng((seed, n))
    with tempfile.TemporaryDirectory() as d:
        df,_ = drawn(rng, .6, .5)
        run = train("tabular", df, Path(d)/"run", n_boot=0, encoders=None, store=Path(d)/"store", **FAST)
        base = pd.DataFrame({"video_id": ["new"], "author": ["c1"], "title": ["x"], "published_at": [START]})
        titles = {f"{i}{'?'*(i % 2)}": {"title": title(rng)+"?"*(i % 2)} for i in range(n)}
        frame = ContrastModel(run.folder, df, store=Path(d)/"store").ask(base, titles).frame
    good = frame["variant"].str.endswith("?")
    return dict(others_called_worse=float((frame["answer"][~good] == "worse").mean()),
        questions_called_worse=float((frame["answer"][good] == "worse").mean()), first_is_question=float(good[0]))


def similar_pairs(titles, lowest=.4):
    "Positions of disjoint pairs of similar, not equal titles, the most similar first, and their similarities"
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.neighbors import NearestNeighbors
    X = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), min_df=2, sublinear_tf=True).fit_transform(titles)
    far,near = NearestNeighbors(n_neighbors=4, metric="cosine").fit(X).kneighbors(X)
    found = sorted((d, i, j) for i,(ds,js) in enumerate(zip(far, near)) for d,j in zip(ds, js) if titles[i] != titles[j])
    pairs,used = [],set()
    for d,i,j in found:
        if d > 1-lowest or used & {i, int(j)}: continue
        pairs.append((i, int(j), 1-d))
        used |= {i, int(j)}
    return tuple(map(np.array, zip(*pairs)))


def similar_titles(model):
    "Test of titles on held-out pairs of similar title"
    unseen = ~model.seen[0]
    rows,truth = model.rows[unseen].reset_index(drop=True),model.truth[unseen]
    i,j,alike = similar_pairs(rows["title"].fillna("").tolist())
    both = pd.concat([rows, take_fields(rows.iloc[i], rows.iloc[j], ("title",))], ignore_index=True)
    p = model.model.predict(both.assign(video_id=[str(o) for o in range(len(both))]))["prediction"].to_numpy()
    d = p[i]-p[len(rows):]
    found = swap_test(truth[i]-truth[j], d, p[i]-p[j]-d, np.arange(len(i)), ("title",), False)
    return asdict(found) | {"median_similarity": round(float(np.median(alike)), 3)}


def real(path, seed):
    "Tests of swapped fields on the held-out videos of a real table"
    df,out = read_table(path),{}
    inputs = ["title", "description", "time", "creator", "category"]
    with tempfile.TemporaryDirectory() as d:
        run = train("tabular", df, Path(d)/"run", n_boot=0, encoders=None, seed=seed, members=1, inputs=inputs)
        out["scores"] = repr(run.scores)
        named = df.get("author", pd.Series(dtype=object)).notna().any()
        model = ContrastModel(run.folder, df, refits=8 if named else 0)
        if not named:
            return out | {"title, pairs of similar title": similar_titles(model)}
        for f in ("title", "description", "hour", "duration"):
            try: out[f] = asdict(model.test((f,)))
            except InputError as e: out[f] = {"why": str(e)}
    return out


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rounds", type=int, default=20, help="simulated tables of each world")
    p.add_argument("--seconds", type=float, default=np.inf, help="no table is begun after this time")
    p.add_argument("--asked", type=int, default=8, help="questions of each kind to each table")
    p.add_argument("--scale", type=float, default=1, help="factor of the planted effects")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--media", action="store_true", help="thumbnails and first seconds in place of titles and hours")
    p.add_argument("--titles", type=int, help="titles of a file that is put in order, in place of pairs")
    p.add_argument("--table", type=Path, help="real table of videos in place of simulated ones")
    p.add_argument("--out", type=Path, default=Path(__file__).parent/"results"/"what_if.json", help="JSON file")
    a = p.parse_args()
    warnings.filterwarnings("ignore")
    start,rows = time.time(),[]
    if a.titles:
        rows = pd.DataFrame([ordered(a.seed+i, a.titles) for i in range(a.rounds)])
        result = dict(seed=a.seed, tables=len(rows), titles=a.titles) | rows.mean().round(4).to_dict()
        result["tables_with_a_question_called_worse"] = int((rows["questions_called_worse"] > 0).sum())
        write_json(a.out, result)
        return print(f"{result}\n{len(rows)} files of titles in {time.time()-start:.0f} s; {a.out}")
    if a.table:
        result = real(a.table, a.seed)
        for k,v in result.items(): print(f"{k}: {v}")
        write_json(a.out, result)
        return print(f"{len(result)-1} tests in {time.time()-start:.0f} s; {a.out}")
    worlds,answer = (MEDIA_WORLDS, media_answers) if a.media else (WORLDS, answers)
    for i in range(a.rounds):
        for name in worlds if a.scale == 1 else list(worlds)[:1]:
            if time.time()-start > a.seconds: continue
            rows += answer(name, a.seed+i, a.asked, a.scale)
        about = dict(seed=a.seed, tables=len({r["table"] for r in rows}), asked=a.asked, scale=a.scale)
        write_json(a.out, about | summary(rows))
    for world,kinds in summary(rows).items(): print(world, *(f"  {k}: {v}" for k,v in kinds.items()), sep="\n")
    print(f"{len(rows):,} questions to {len({r['table'] for r in rows})} tables in {time.time()-start:.0f} s; {a.out}")


if __name__ == "__main__": sys.exit(main())
