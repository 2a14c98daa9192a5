"""What does a smaller bank of the text kernel cost, and a part of the training texts? Processor time and rank correlation on new titles.

    python bench/text_bank.py [--rows 30000] [--banks 13000 3000 1000] [--part 3] [--table FILE] [--out bench/results/text_bank.json]

Simulated titles of 4 to 12 words, half of them from a vocabulary of 30,000 by Zipf's law; a label is the sum of effects of words and
of pairs of neighbouring topics, plus noise. With `--table`, titles and views of a CSV file or table instead, eight tenths of it for training.
`all` is a linear model of all columns of the text reader, fitted on out-of-fold columns of the training rows. `part`: a third fits the reader.
"""
import argparse
import sys
import time
from pathlib import Path
from unittest import mock

import numpy as np

WORDS = 30_000


class World:
    "Titles and labels by effects that a seed draws"
    def __init__(self, seed=1):
        rng = self.rng = np.random.default_rng(seed)
        letters = np.array(list("etaoinshrdlucmfwypvbgkjqxz"))
        self.words = np.array(["".join(rng.choice(letters, k)) for k in rng.integers(2, 10, WORDS)], dtype=object)
        self.effect,self.topic,self.pairs = rng.normal(0, 1, WORDS),rng.integers(200, size=WORDS),rng.normal(0, 1, (200, 200))

    def __call__(self, n):
        rng = self.rng
        size = rng.integers(4, 13, n)
        d = np.minimum(rng.zipf(1.3, size.sum()), WORDS)-1
        d = np.where(rng.random(len(d)) < .5, d, (WORDS*rng.random(len(d))**2).astype(int))
        row,ends = np.repeat(np.arange(n), size),np.cumsum(size)
        p = self.pairs[self.topic[d[:-1]], self.topic[d[1:]]]
        p[row[:-1] != row[1:]] = 0
        y = .7*np.bincount(row, self.effect[d], n) + .5*np.bincount(row[:-1], p, n)
        y = y/np.sqrt(size) + rng.normal(0, 1, n)
        return [" ".join(self.words[d[b-s:b]]) for s,b in zip(size, ends)], y


def of_table(path, seed=0):
    "Titles and log views: training, validation and test rows; equal titles in one part"
    from popnb.data.sources import read_source
    from popnb.models.tabular.text import text_folds
    t,_ = read_source("csv", path)
    t = t[t["title"].notna() & t["views"].notna()]
    texts,y,fold = t["title"].tolist(),np.log1p(t["views"].to_numpy()),text_folds(t["title"].tolist(), seed, 10)
    return [([x for x,f in zip(texts, fold) if f in k], y[np.isin(fold, k)]) for k in (range(8), [8], [9])]


def measure(parts, bank, part):
    "Fit a reader and rank the test rows"
    from scipy.stats import spearmanr
    from popnb.models.tabular import text
    (t,y),(tv,yv),(tt,yt) = parts
    r = text.TextReader(bank=bank)
    start = time.process_time()
    with mock.patch.object(text, "FIT_ROWS", -(-len(t)//part)): train = r.fit(t, y, tv, yv)
    fitted = time.process_time()
    new = r.transform(tt)
    done,known = time.process_time(),~np.isnan(train).any(1)
    m,sd = train[known].mean(0),train[known].std(0)+1e-9
    A = np.c_[(train[known]-m)/sd, np.ones(known.sum())]
    w = np.linalg.solve(A.T @ A + np.eye(A.shape[1]), A.T @ y[known])
    p = np.c_[np.where(np.isnan(new), 0, (new-m)/sd), np.ones(len(new))] @ w
    def rho(v): return round(float(spearmanr(v, yt, nan_policy="omit")[0]), 4)
    columns = {c: rho(new[:, r.columns.index(c)]) for c in ("linear", "words_linear", "near_mean", "like_value")}
    return dict(bank=len(r.learned[1]), part=f"1/{part}", fit_s=round(fitted-start, 1), new_s=round(done-fitted, 1), all=rho(p), **columns)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rows", type=int, default=30_000)
    p.add_argument("--banks", type=int, nargs="+", default=[13_000, 3_000, 1_000])
    p.add_argument("--part", type=int, default=3, help="one further case: one of so many parts of the texts fits the reader; 1: none")
    p.add_argument("--table", help="file with titles and views in place of simulated titles")
    p.add_argument("--out", type=Path, default=Path(__file__).parent/"results"/"text_bank.json", help="JSON file")
    a = p.parse_args()
    from popnb.core import read_json, write_json
    world = World()
    parts = of_table(a.table) if a.table else [world(n) for n in (a.rows, 20_000, 20_000)]
    name,n = Path(a.table).stem if a.table else "simulated",len(parts[0][0])
    out = read_json(a.out) if a.out.exists() else {}
    cases = [(b, 1) for b in a.banks] + [(a.banks[0], a.part)]*(a.part > 1)
    for bank,part in cases:
        r = measure(parts, bank, part)
        out[f"{name}, {n} training texts"] = out.get(f"{name}, {n} training texts", []) + [r]
        print(name, n, r, flush=True)
        write_json(a.out, out)


if __name__ == "__main__": sys.exit(main())
