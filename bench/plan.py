"""Is a planned time the measured time?

    python bench/plan.py [--seconds 280] [--rounds 3] [--clips 100] [--rows 20000] [--jobs NAME …] [--clock wall|cpu] [--out bench/results/plan.json]
    python bench/plan.py --rates bench/results/plan_rates.json

Jobs on this machine: hand-crafted signals and the small CLIP encoder on simulated clips, predictions of a tabular run on a table
of texts, predictions of a small video network on clips. In every round each job is measured on other, fewer videos, planned by
`plan_work` for this machine, and run by the function that the command uses, one after the other: measure, plan, run. Written are
planned and measured seconds of every round and the median ratio. Rounds stop when the time is used up. With --clock cpu both are
seconds of the processors, of this process and its workers, which other programs on the machine disturb less.

With --rates nothing is compared: rates of this machine are taken on upright simulated clips of about 10 s, 720 × 1280 pixels and
30 frames a second, and written for the explanation of plans of millions of clips.
"""
import argparse
import json
import os
import resource
import statistics
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

os.environ.setdefault("POPNB_PROGRESS", "0")

import popnb.runs.rates  # noqa: E402
from popnb.core import processors, write_json  # noqa: E402
from popnb.features.registry import embed_table, make_encoder  # noqa: E402
from popnb.features.signal_table import handmade  # noqa: E402
from popnb.models.predictor import load  # noqa: E402
from popnb.runs.predict_table import predict_table  # noqa: E402
from popnb.runs.rates import job_of, measure_rates, measure_extraction, measure_prediction, measure_storage  # noqa: E402
from popnb.runs.train import train  # noqa: E402
from popnb.runs.work_plan import plan_work  # noqa: E402
from popnb.simulation.dataset import SMALL, simulate  # noqa: E402


CLOCKS = {"wall": time.perf_counter, "cpu": lambda: sum(sum(resource.getrusage(who)[:2])
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))}


class Jobs:
    "Tables, runs and the jobs on them"
    def __init__(self, folder, clips, rows):
        self.folder,self.count = folder,0
        self.few = simulate(36, folder/"few", seed=1, **SMALL).table       # other videos than those of the job
        self.many = simulate(clips, folder/"many", seed=2, **SMALL).table
        self.texts = {k: simulate(n, media=False, seed=s).table for k,n,s in (("train", 3000, 3), ("few", 3000, 5), ("many", rows, 4))}
        for k,t in {"clips": self.many, "texts": self.texts["many"]}.items(): t.to_parquet(folder/f"{k}.parquet")
        store = folder/"training"
        small = dict(inputs=["title", "description", "time", "creator"], members=1, rounds=200)
        self.tabular = load(train("tabular", self.texts["train"], folder/"tabular", encoders=None, n_boot=0, store=store, **small).folder)
        self.video = load(train("r2plus1d", self.few, folder/"video", preset="tiny", n_boot=0, store=store,
            training={"epochs": 1}).folder)

    def new_store(self):
        self.count += 1
        return self.folder/f"store{self.count}"

    def predict(self, model, name):
        out = self.folder/f"{name}{self.count}.scores"
        predict_table(model, self.folder/f"{name}.parquet", out, store=self.new_store(), overwrite=True)

    def all(self):
        "Name -> kind, what, preset, rows, measurement, run"
        clip = lambda: make_encoder("clip", preset="tiny", device="cpu")
        return {
            "extract handmade": ("extract", "handmade", "pretrained", len(self.many),
                lambda: measure_extraction("handmade", self.few), lambda: handmade(self.many, self.new_store())),
            "extract clip tiny": ("extract", "clip", "tiny", len(self.many),
                lambda: measure_extraction("clip", self.few, preset="tiny", device="cpu"),
                lambda: embed_table(self.many, clip(), self.new_store())),
            "predict tabular": ("predict", self.tabular.folder, None, len(self.texts["many"]),
                lambda: measure_prediction(self.tabular, self.texts["few"]), lambda: self.predict(self.tabular, "texts")),
            "predict r2plus1d tiny": ("predict", self.video.folder, "tiny", len(self.many),
                lambda: measure_prediction(self.video, self.few), lambda: self.predict(self.video, "clips"))}


def one_round(job, machine, storage, clock):
    "Planned and measured seconds of a job"
    kind,what,preset,rows,measure,run = job
    rate = measure()
    rates = {"machine": machine, "clips": {}, "storage": storage, "rates": {job_of(kind, what, preset): rate.to_dict()}}
    plan = plan_work(kind, what, rows, preset=preset, rates=rates)
    begin = clock()
    run()
    return {"planned": round(plan.seconds, 3), "measured": round(clock()-begin, 3), "bottleneck": plan.bottleneck}


def write_rates(out):
    "Rates of this machine with clips as phones make them"
    with tempfile.TemporaryDirectory() as d:
        table = simulate(27, Path(d)/"clips", seed=5, size=(1280, 720), seconds=(8, 12), fps=30).table
        found = measure_rates((), table, rounds=1, store=Path(d)/"store")
    found["clips"]["simulated"] = True
    write_json(out, found)
    print({k: round(r["media"], 3) for k,r in found["rates"].items()})


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--seconds", type=float, default=280, help="no round begins that would end later")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--clips", type=int, default=100)
    p.add_argument("--rows", type=int, default=20_000)
    p.add_argument("--clock", choices=list(CLOCKS), default="wall")
    p.add_argument("--rates", type=Path, help="write rates into this JSON file, and compare nothing")
    p.add_argument("--jobs", nargs="+", help="only these")
    p.add_argument("--out", type=Path, default=Path(__file__).parent/"results"/"plan.json", help="JSON file")
    a = p.parse_args()
    start,done,longest = time.time(),0,0.
    if a.rates:
        write_rates(a.rates)
        return print(f"rates in {time.time()-start:.0f} s; {a.rates}")
    clock = CLOCKS[a.clock]
    popnb.runs.rates.time = SimpleNamespace(perf_counter=clock)
    with tempfile.TemporaryDirectory() as d:
        jobs = Jobs(Path(d), a.clips, a.rows)
        chosen = {k: v for k,v in jobs.all().items() if not a.jobs or k in a.jobs}
        machine = {"cores": processors(), "processor": "", "device": "cpu", "operations": None}
        storage,rounds = measure_storage(Path(d)),{k: [] for k in chosen}
        while done < a.rounds and (not done or time.time()-start+longest < a.seconds):
            begin = time.time()
            for name,job in chosen.items(): rounds[name].append(one_round(job, machine, storage, clock))
            done,longest = done+1,max(longest, time.time()-begin)
    ratios = {k: round(statistics.median(r["planned"]/r["measured"] for r in v), 3) for k,v in rounds.items()}
    result = {"machine": machine, "clips": a.clips, "rows": a.rows, "clock": a.clock, "rounds": rounds, "planned_over_measured": ratios,
        "load_at_end": os.getloadavg()[0]}
    print(json.dumps(ratios))
    write_json(a.out, result)
    near = sum(abs(r-1) <= .3 for r in ratios.values())
    print(f"{near} of {len(ratios)} jobs within 30 %, {done} rounds in {time.time()-start:.0f} s; {a.out}")


if __name__ == "__main__": main()
