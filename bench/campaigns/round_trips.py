"""Round trips: does every kind of run predict the same, to the last bit, after it is saved and loaded in a fresh process?

    python bench/campaigns/round_trips.py [--seconds S] [--only SYSTEM …] [--runs FOLDER] [--out FILE]

Every system, at preset tiny, with every method of fine-tuning that it has (full, head, LoRA, QLoRA: the base in 4 bits) and
training in fp32 and bf16 (emulated where the processor has none), is trained on 48 simulated videos and predicts them. A new
process loads all runs and predicts again. A combination that a system refuses is counted with its sentence."""
import argparse, json, math, os, subprocess, sys, tempfile, time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
os.environ |= {"POPNB_PROGRESS": "0", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}

METHODS = ("full", "head", "lora", "qlora")
NETWORKS = {"r2plus1d": "log-views", "timesformer": "extremes", "videomae": "log-views", "smolvlm2": "ecr", "qwen2.5-vl": "ecr",
            "videollama2": "ecr"}
READOUTS = {"smolvlm2": ("head", "token", "logits")}


def cases():
    "Name -> system, label, options, settings of the training"
    out = {"tabular": ("tabular", "log-views", {"encoders": None}, {}), "clip-lgbm": ("clip-lgbm", "log-views", {"encoders": None}, {}),
           "clip-lgbm-faithful": ("clip-lgbm", "log-views", {"faithful": True}, {}),
           "tabular-class": ("tabular", "extremes", {"encoders": None}, {})}
    for p in ("fp32", "bf16"):
        out[f"smtpd-full-{p}"] = "smtpd", "views-per-day", {}, {"epochs": 1, "precision": p}
        for s,label in NETWORKS.items():
            for m in METHODS: out[f"{s}-{m}-{p}"] = s, label, {"method": m}, {"epochs": 1, "precision": p}
    for s,kinds in READOUTS.items():
        for r in kinds[1:]: out[f"{s}-{r}-lora-fp32"] = s, "ecr", {"method": "lora", "readout": r}, {"epochs": 1, "precision": "fp32"}
    for m in ("a", "v"): out[f"videollama2-{m}-lora-fp32"] = "videollama2", "ecr", {"method": "lora", "modalities": m}, {"epochs": 1, "precision": "fp32"}
    for h in ("rank", "mean", "nnls", "stack"): out[f"ensemble-{h}"] = "ensemble", "log-views", {"how": h}, {}
    out["ensemble-trees"] = "ensemble", "log-views", {"how": "stack", "stacker": "lightgbm"}, {}
    return out


def predicted(model, table, store):
    "Predictions of all columns as hexadecimal numbers"
    model.store,model.workers = store,1
    frame = model.predict(table)
    return {c: [float(v).hex() for v in frame[c]] for c in frame if str(c).startswith(("prediction", "percentile"))}


def train_one(name, case, folder, table, store):
    "Train a case and return its predictions"
    import popnb
    from popnb.runs.ensemble import train_ensemble
    system,label,options,training = case
    common = dict(store=store, seed=5, workers=1, overwrite=True, n_boot=0)
    if system == "ensemble":
        members = [folder/"tabular", folder/"r2plus1d-lora-fp32"]
        return predicted(train_ensemble(folder/"world"/"table.parquet", folder/name, members, **options, **common).model, table, store)
    more = {"label_options": {"days": 5}} if label == "views-per-day" else {}
    run = popnb.train(system, table, folder/name, label=label, preset="tiny", training=training, **common, **more, **options)
    return predicted(run.model, table, store)


def load_all(folder):
    "Load the runs of a folder in this process and print their predictions as JSON lines"
    import torch, popnb
    from popnb.data.table import read_table
    from popnb.runs.train import open_store
    torch.set_num_threads(1)
    table,store = read_table(folder/"world"/"table.parquet"),open_store(folder/"store")
    for name in sorted(json.loads((folder/"trained.json").read_text())):
        try: found = predicted(popnb.load(folder/name), table, store)
        except Exception as e: found = {"error": f"{type(e).__name__}: {e}"}
        print(json.dumps({"name": name, "found": found}), flush=True)


def train_all(folder, only, seconds):
    "Train the cases; their predictions, and the sentences of those that are refused"
    import torch
    import popnb.training.config as config
    from popnb.core import PopnbError
    from popnb.data.table import read_table
    from popnb.runs.train import open_store
    from popnb.simulation.dataset import simulate
    torch.set_num_threads(1)
    config.has_bf16 = lambda device: True               # emulated here, if need be: the files are the same
    start,path,trained,refused = time.time(),folder/"world"/"table.parquet",{},{}
    if not path.exists(): simulate(48, folder/"world", seed=3)
    table,store = read_table(path),open_store(folder/"store")
    for name,case in cases().items():
        if only and case[0] not in only or time.time()-start > seconds: continue
        at = time.time()
        try: trained[name] = train_one(name, case, folder, table, store)
        except PopnbError as e: refused[name] = str(e)
        print(f"{name}: {refused.get(name, 'trained')} ({time.time()-at:.0f} s)", flush=True)
    return trained,refused


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--seconds", type=float, default=math.inf)
    ap.add_argument("--only", nargs="*")
    ap.add_argument("--runs", type=Path)
    ap.add_argument("--out", type=Path)
    ap.add_argument("--load", type=Path, help=argparse.SUPPRESS)
    a = ap.parse_args()
    if a.load: return load_all(a.load)
    start = time.time()
    with tempfile.TemporaryDirectory() as d:
        folder = (a.runs or Path(d)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        trained,refused = train_all(folder, a.only, a.seconds)
        (folder/"trained.json").write_text(json.dumps(trained))
        fresh = subprocess.run([sys.executable, "-P", __file__, "--load", folder], capture_output=True, text=True)
        lines = [json.loads(l) for l in fresh.stdout.splitlines() if l.startswith("{")]
        loaded = {o["name"]: o["found"] for o in lines}
    if fresh.returncode: print(fresh.stderr[-2000:])
    other = {k: {c: [trained[k].get(c, [])[:2], v[:2] if isinstance(v, list) else v] for c,v in loaded.get(k, {"error": "not loaded"}).items()}
             for k in trained if trained[k] != loaded.get(k)}
    summary = {"trained": len(trained), "equal": len(trained)-len(other), "different": other, "refused": refused,
               "cases": sorted(trained), "seconds": round(time.time()-start)}
    if a.out: a.out.write_text(json.dumps(summary, indent=1)+"\n")
    print(f"{len(trained)} kinds of runs, {summary['equal']} equal to the last bit in a fresh process, {len(refused)} combinations "
          f"refused, {len(other)} different{': ' + ', '.join(other) if other else ''} ({summary['seconds']} s)")
    sys.exit(bool(other) or len(loaded) < len(trained))


if __name__ == "__main__": main()
