"""Altered runs: does a run from somebody else, or from a failing disk, end in one sentence?

    python bench/campaigns/runs.py [--rounds 1000] [--seconds S] [--seed 0] [--start 0] [--runs FOLDER] [--only SYSTEM …] [--out FILE]

Small runs of all systems are trained once (`--runs` keeps them). Each round copies one, alters it and loads and predicts it
in a process of its own with a limit of time and memory. Alterations: bytes, truncated, emptied, removed and exchanged files;
values of JSON (other types, huge and negative numbers, NaN, other names, deep and long JSON); tensors (NaN, infinity, huge and
negative numbers, indices out of bounds, other shapes and types, lost and renamed ones); lines and numbers of LightGBM's text.
The manifest is kept as it was, made again, or removed.

Right are: one sentence (a `PopnbError` of one line), or finite predictions; with the manifest kept, the same predictions as
before. Wrong are: a traceback, a signal, no end, a number that is not finite, other predictions under a kept manifest."""
import argparse, json, math, os, random, re, resource, shutil, sys, tempfile, time
from collections import Counter
from pathlib import Path

from forked import in_child

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
os.environ |= {"POPNB_PROGRESS": "0", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1",
               "TOKENIZERS_PARALLELISM": "false"}

CASES = {    # system -> (label, options of the training)
    "tabular": ("log-views", {}), "clip-lgbm": ("log-views", {}), "smtpd": ("views-per-day", {"epochs": 1}),
    "r2plus1d": ("log-views", {"epochs": 1}), "timesformer": ("extremes", {"epochs": 1}),
    "smolvlm2": ("ecr", {"epochs": 1}), "videollama2": ("ecr", {"epochs": 1}), "ensemble": None}
SECONDS,CPU,MEMORY = 300,60,12 << 30      # limits of one round: on the clock, of the processor, bytes
VALUES = (None, True, -1, 0, 3, 10**9, 10**30, 2**63, 1e308, -1e308, 1e-320, .5, "", "x", "../../x", "é\n\x1b[2J", [], {}, [[]],
          [1e308], ["x"]*3, {"x": 1}, [None], -7.5)
RAW = (b"NaN", b"Infinity", b"-Infinity", b"1e999", b"[" * 3000, b"{\"a\":" * 500, b"\xff\xfe", b"9" * 5000, b"\x00")
TOKENS = ("0", "1", "-1", "-2", "999999999", "4294967296", "nan", "inf", "-inf", "1e308", "-1e308", "x", "", "0 0", "1e-320", "15", "255")


def make(folder):
    "Train the runs, each in a process of its own"
    folder.mkdir(parents=True, exist_ok=True)
    def world():
        from popnb.simulation.dataset import simulate
        simulate(48, folder/"world", seed=3, overwrite=True)
    def one(name):
        import torch, popnb
        torch.set_num_threads(1)
        common = dict(store=folder/"store", seed=5, workers=1, overwrite=True, n_boot=0)
        table = folder/"world"/"table.parquet"
        if name == "ensemble":
            from popnb.runs.ensemble import train_ensemble
            return train_ensemble(table, folder/name, [folder/"tabular", folder/"r2plus1d"], **common) and None
        label,training = CASES[name]
        options = {"label_options": {"days": 5}} if label == "views-per-day" else {}
        popnb.train(name, table, folder/name, label=label, preset="tiny", training=training, **common, **options)
    if not (folder/"world"/"table.parquet").exists(): require(in_child(world))
    for name in CASES:
        if not (folder/name/"config.json").exists():
            start = time.time()
            require(in_child(lambda: one(name)))
            print(f"trained {name} in {time.time()-start:.0f} s", flush=True)


def require(result):
    found,why = result
    if why or isinstance(found, dict) and found.get("kind") == "traceback": raise SystemExit(why or found["text"])


def outcome(run, folder, store):
    "What loading and predicting a run ends in"
    import popnb
    import popnb.runs.predict as predict
    from popnb.core import PopnbError
    from popnb.data.table import read_table
    predict._file_errors = lambda *a: ({}, set())            # the videos are not altered
    try:
        table = read_table(folder/"world"/"table.parquet").iloc[[1, 7]].reset_index(drop=True)
        records = predict.predict_videos(popnb.load(run), table, store=store, workers=1)
        return {"kind": "answer", "text": json.dumps([{k: r[k] for k in ("video", "prediction", "error")} for r in records])}
    except PopnbError as e: return {"kind": "sentence", "text": str(e)}


def answer(run, folder, log=os.devnull):
    "`outcome` in this process, which has a limit of memory and writes to a file"
    import numpy as np
    fd = os.open(log, os.O_WRONLY | os.O_CREAT)
    os.dup2(fd, 1), os.dup2(fd, 2)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU, CPU))         # a loaded machine is slow on the clock
    np.seterr(all="ignore")
    return outcome(run, folder, folder/"store")


# --- alterations: each takes a random generator and a run folder, and returns what it did -----------------------------

def files_of(run, *suffixes):
    found = sorted(p for p in run.rglob("*") if p.is_file() and p.name != "manifest.json"
                   and (p.name == "config.json" or "model" in p.relative_to(run).parts))
    return [p for p in found if not suffixes or p.suffix in suffixes]


def alter_bytes(r, run):
    p = r.choice(files_of(run))
    data = bytearray(p.read_bytes())
    if not data: return f"{p.name} is empty already"
    n = r.choice((1, 1, 3, 50))
    top = len(data) if r.random() < .5 else min(len(data), 4000)       # headers are at the beginning
    for _ in range(n): data[r.randrange(top)] = r.randrange(256)
    p.write_bytes(data)
    return f"{n} bytes of {p.name}"


def alter_file(r, run):
    p,what = r.choice(files_of(run)),r.choice(("truncate", "empty", "remove", "append", "exchange", "folder", "link", "double"))
    data = p.read_bytes()
    if what == "truncate": p.write_bytes(data[:r.randrange(len(data)+1)])
    elif what == "empty": p.write_bytes(b"")
    elif what == "append": p.write_bytes(data + r.randbytes(r.choice((1, 100, 5000))))
    elif what == "double": p.write_bytes(data*2)
    elif what == "exchange":
        q = r.choice(files_of(run))
        p.write_bytes(q.read_bytes())
        q.write_bytes(data)
    else:
        p.unlink()
        if what == "folder": p.mkdir()
        if what == "link": p.symlink_to(p)
    return f"{what} {p.name}"


def place(r, o):
    "A random place in nested JSON, all branches alike"
    at = ()
    while isinstance(o, (dict, list)) and o and (not at or r.random() < .8):
        k = r.choice(list(o)) if isinstance(o, dict) else r.randrange(len(o))
        at,o = (*at, k),o[k]
    return at


def alter_json(r, run):
    p = r.choice(files_of(run, ".json"))
    text = p.read_bytes()
    how = r.random()
    if how < .2:                                     # raw, at a number or text
        spots = [m.span() for m in re.finditer(rb"(?<=[:\[,]\s)[^\s,\[\]{}]+", text)] or [(0, len(text))]
        a,b = r.choice(spots)
        raw = r.choice(RAW)
        p.write_bytes(text[:a] + raw + text[b:])
        return f"raw {raw[:12]!r} in {p.name}"
    if how < .24:
        n = r.choice((10**5, 3*10**6))
        p.write_bytes(text.rstrip()[:-1] + b', "more": [' + b"[]," * n + b"0]}")
        return f"{3*n:,} bytes more in {p.name}"
    data = json.loads(text)
    at,o = place(r, data),data
    if not at: return f"{p.name} is empty already"
    for k in at[:-1]: o = o[k]
    if how < .35:
        del o[at[-1]]
        what = "lost"
    elif how < .42 and isinstance(o, dict):
        o[r.choice(("x", "", "__class__", "self"))] = o.pop(at[-1])
        what = "renamed"
    elif how < .5 and isinstance(o, list):
        o.extend(r.choice(o) for _ in range(r.choice((1, 1000))))
        what = "longer"
    else:
        o[at[-1]] = r.choice(VALUES)
        what = repr(o[at[-1]])[:20]
    p.write_text(json.dumps(data))
    return f"{'.'.join(map(str, at))} of {p.name}: {what}"


def alter_tensor(r, run):
    import numpy as np
    import torch
    from safetensors.torch import load_file, save_file
    found = files_of(run, ".safetensors")
    if not found: return alter_json(r, run)
    p = r.choice(found)
    state = {k: v.clone() for k,v in load_file(p).items()}
    name = r.choice(sorted(state))
    v = state[name]
    what = r.choice(("one", "one", "all", "all", "shape", "short", "long", "type", "lost", "renamed", "scaled", "exchanged"))
    values = (math.nan, math.inf, -math.inf, 3e38, -3e38, 1e30, -1., 0.) if v.is_floating_point() else (-1, 0, 10**9, 2**31-1, -2**31, 255)
    value = r.choice(values)
    if not v.is_floating_point() and v.dtype == torch.uint8: value = abs(int(value)) % 256
    with np.errstate(all="ignore"):
        try:
            if what == "one" and v.numel(): v.view(-1)[r.randrange(v.numel())] = value
            elif what == "all": v.fill_(value)
            elif what == "shape": state[name] = v.reshape(-1, 1) if v.ndim != 2 else v.T.contiguous()
            elif what == "short": state[name] = v[:len(v)//2].contiguous() if v.ndim else v
            elif what == "long": state[name] = torch.cat([v, v]) if v.ndim else v
            elif what == "type": state[name] = v.to(r.choice((torch.float16, torch.int64, torch.uint8, torch.bool, torch.bfloat16)))
            elif what == "lost": del state[name]
            elif what == "renamed": state[r.choice(("x", "like.fit", name+".x"))] = state.pop(name)
            elif what == "scaled": state[name] = (v.float()*1e30).to(v.dtype)
            else:
                q = r.choice(sorted(state))
                state[name],state[q] = state[q].clone(),state[name].clone()
        except RuntimeError: state[name] = v = torch.zeros_like(v)      # a value that the type cannot hold
    save_file(state, p)
    return f"{name} of {p.name}: {what} {value if what in ('one', 'all') else ''}"


def alter_trees(r, run):
    found = [p for p in files_of(run, ".txt") if p.read_bytes()[:4] == b"tree"]
    if not found: return alter_tensor(r, run)
    p = r.choice(found)
    head,_,rest = p.read_text().partition("\n\n")
    if r.random() < .25:
        lines = head.split("\n")
        i = r.randrange(len(lines))
        lines[i] = r.choice((lines[i].split("=")[0] + "=" + r.choice(TOKENS), "", lines[i]*2, "linear=1"))
        p.write_text("\n".join(lines) + "\n\n" + rest)
        return f"head of {p.name}: {lines[i][:30]}"
    body,mark,tail = rest.partition("end of trees")
    blocks = re.split(r"(?=^Tree=)", body, flags=re.M)[1:]
    i = r.randrange(len(blocks))
    lines = blocks[i].split("\n")
    j = r.randrange(max(len(lines)-3, 1))
    name,_,value = lines[j].partition("=")
    tokens = value.split(" ")
    what = r.choice(("token", "token", "token", "lost token", "lost line", "double line", "other tree"))
    if what == "token": tokens[r.randrange(len(tokens))] = r.choice(TOKENS)
    if what == "lost token": tokens.pop(r.randrange(len(tokens)))
    lines[j] = f"{name}={' '.join(tokens)}"
    if what == "lost line": del lines[j]
    if what == "double line": lines.insert(j, lines[j])
    blocks[i] = "\n".join(lines) if what != "other tree" else r.choice(blocks)
    if r.random() < .8: head = re.sub(r"(?<=tree_sizes=).*", " ".join(str(len(b)) for b in blocks), head)
    p.write_text(head + "\n\n" + "".join(blocks) + mark + tail)
    return f"tree {i} of {p.name}, {what}: {lines[min(j, len(lines)-1)][:30]}"


def accept_members(run):
    "Give altered members of an ensemble their new fingerprints"
    from popnb.models.ensemble.system import run_fingerprint
    path = run/"model"/"blend.json"
    try:
        about = json.loads(path.read_text())
        for m in about["members"]:
            if m.get("print"): m["print"] = run_fingerprint(run/"model"/"members"/m["name"])
        path.write_text(json.dumps(about))
    except Exception: pass             # that file itself was altered


ALTERATIONS = {"bytes": alter_bytes, "file": alter_file, "json": alter_json, "tensor": alter_tensor, "trees": alter_trees}
WEIGHTS = (1, 1, 3, 2.5, 2.5)


def judge(found, why, before, manifest):
    "Kind of an end, and whether it is right"
    if why: return why, False
    if found["kind"] == "traceback": return "traceback", False
    if found["kind"] == "sentence":
        return ("sentence", True) if "\n" not in found["text"] and 20 < len(found["text"]) < 800 else ("long sentence", False)
    try: records = json.loads(found["text"], parse_constant=lambda c: 1/0)
    except ZeroDivisionError: return "not finite", False
    if found["text"] == before: return "unchanged", True
    if any(o["prediction"] is None and not o["error"] for o in records): return "neither prediction nor error", False
    return ("other prediction", manifest != "kept")


def one_round(seed, folder, before, systems, scratch):
    r = random.Random(seed)
    system,kind = r.choice(systems),r.choices(list(ALTERATIONS), WEIGHTS)[0]
    manifest = r.choices(("kept", "made again", "removed"), (.35, .5, .15))[0]
    run = scratch/"run"
    shutil.rmtree(run, ignore_errors=True)
    run.mkdir()
    for name in ("config.json", "manifest.json"): shutil.copy2(folder/system/name, run/name)
    shutil.copytree(folder/system/"model", run/"model")
    did = ALTERATIONS[kind](r, run)
    from popnb.models.run_files import write_manifest
    runs = [run, *(p.parent for p in run.rglob("members/*/config.json"))][::-1]        # members have their own
    if manifest != "kept" and len(runs) > 1: accept_members(run)
    for o in runs:
        if manifest == "removed": (o/"manifest.json").unlink(missing_ok=True)
        elif manifest == "made again":
            try: write_manifest(o)
            except OSError: pass
    start = time.time()
    found,why = in_child(lambda: answer(run, folder, scratch/"log"), SECONDS)
    how,right = judge(found, why, before[system], manifest)
    return {"seed": seed, "system": system, "kind": kind, "manifest": manifest, "did": did, "end": how, "right": right,
            "seconds": round(time.time()-start, 1), "text": (found or {}).get("text", "")[-700:]}


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--rounds", type=int, default=1000)
    ap.add_argument("--seconds", type=float, default=math.inf)
    ap.add_argument("--seed", type=int, default=0)
    ap.add_argument("--start", type=int, default=0, help="number of the first round")
    ap.add_argument("--runs", type=Path)
    ap.add_argument("--only", nargs="*", default=list(CASES))
    ap.add_argument("--out", type=Path)
    ap.add_argument("--show", action="store_true", help="print every round")
    a = ap.parse_args()
    start,rounds = time.time(),[]
    with tempfile.TemporaryDirectory() as scratch:
        folder = (a.runs or Path(scratch)/"runs").absolute()
        make(folder)
        before = {}
        import torch
        torch.set_num_threads(1)
        shutil.copytree(folder/"store", Path(scratch)/"warm")
        for s in a.only: outcome(folder/s, folder, Path(scratch)/"warm")        # all imports happen before the forks
        for s in a.only:
            found,why = in_child(lambda: answer(folder/s, folder))
            if why or found["kind"] != "answer": raise SystemExit(f"{s}, not altered: {why or found['text']}")
            before[s] = found["text"]
        print(f"{len(before)} runs predict; the first round begins after {time.time()-start:.0f} s", flush=True)
        while len(rounds) < a.rounds and time.time()-start < a.seconds:
            o = one_round(a.seed*1_000_000+a.start+len(rounds), folder, before, a.only, Path(scratch))
            rounds.append(o)
            if a.show or not o["right"]: print(json.dumps(o), flush=True)
            if len(rounds) % 100 == 0: print(len(rounds), dict(Counter(o["end"] for o in rounds)), flush=True)
    ends = Counter(o["end"] for o in rounds)
    wrong = [o for o in rounds if not o["right"]]
    summary = {"rounds": len(rounds), "seed": a.seed, "seconds": round(time.time()-start), "ends": dict(ends), "wrong": len(wrong),
        "by": {k: dict(Counter(f"{o[k]}: {o['end']}" for o in rounds)) for k in ("kind", "manifest", "system")},
        "slowest": max((o["seconds"] for o in rounds), default=0), "examples": wrong[:20]}
    if a.out: a.out.write_text(json.dumps(summary, indent=1)+"\n")
    print(f"{len(rounds)} altered runs in {summary['seconds']} s: {dict(ends)}; wrong: {len(wrong)}")
    sys.exit(bool(wrong))


if __name__ == "__main__": main()
