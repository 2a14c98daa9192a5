"""Wrong calls of the commands and their answers: exit code 1 or 2, one sentence, no traceback, nothing written.

    python bench/wrong_calls.py [--out ANSWERS.md]

Makes a small table, a run and broken files in a temporary folder, runs every call in a process of its own, and prints the answers.
Exit code 1 if a call succeeds, ends in a traceback, or prints more than five lines on stderr."""
import argparse, os, shutil, subprocess, sys, tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

CALLS = """
train
train tabular
train tabualr --data T --out new
train tabular --data T
train tabular --data missing.parquet --out new
train tabular --data notes.txt --out new
train tabular --data empty.csv --out new
train tabular --data folder --out new
train tabular --data T --out RUN
train tabular --data T --out T
train tabular --data T --out /proc/x/run
train tabular --data T --out new --label viewz
train tabular --data T --out new --label column=watch_time
train tabular --data T --out new --label class=title
train tabular --data T --out new --label rank --label-option column=title
train tabular --data T --out new --label above --label-option percentile=150
train tabular --data T --out new --label virality --label-option weights=[1,2]
train tabular --data T --out new --label virality --label-option weights=[1,2,
train tabular --data T --out new --label-option percentile
train tabular --data T --out new --split tiem
train tabular --data T --out new --split group --split-option by=colour
train tabular --data T --out new --split time --split-option valid=2
train tabular --data T --out new --split column=part
train tabular --data T --out new --protocol papr
train tabular --data T --out new --option trees=many
train tabular --data T --out new --option colour=red
train tabular --data T --out new --seed abc
train tabular --data T --out new --epochs 3
train tabular --data tiny.csv --out new
train r2plus1d --data T --out new --device cuda
train r2plus1d --data T --out new --lr -1
train r2plus1d --data T --out new --batch-size 0
train smolvlm2 --data T --out new --option method=qlorra
train ensemble --data T --out new --members RUN
train ensemble --data T --out new --members RUN missing
predict
predict RUN
predict missing V
predict folder V
predict RUN missing.mp4
predict RUN notes.txt
predict RUN T --title Hello
predict RUN V --modalities av
predict RUN V --csv /proc/x/y.csv
predict damaged V
evaluate RUN --data missing.parquet --out new
evaluate RUN --data other.csv --out new
evaluate RUN --data T --out RUN
leaderboard folder --out new
explain RUN --out new
explain RUN V --out RUN
explain RUN V --out new --part wrods
explain RUN V --out new --grid 0
import csv --csv missing.csv --out new.parquet
import tictok --csv a.csv --out new.parquet
import csv --csv a.csv --out a.csv
import csv --csv binary.csv --out new.parquet
import csv --csv a.csv --out new.parquet --column titel=titel
import csv --csv a.csv --out new.parquet --option day=first
clean --data T --out T
clean --data T --out new.parquet --drop shrot
clean --data T --out new.parquet --similarity 7
simulate --n 0 --out new
simulate --n many --out new
download --data T --what songs --out new
check missing.mp4
check
features clpi --data T
features clip --data T --model-id /missing/weights
plan gpt5
plan smolvlm2 --memory -3
collect --out new
frobnicate
train tabular --data T --out new --config missing.toml
train tabular --data T --out new --config wrong.toml
--colour red
""".strip().splitlines()

def world(d):
    "A table, a run, a video and broken files in the folder `d`"
    import pandas as pd
    popnb(d, "simulate", "--n", "60", "--out", "sim", "--seed", "1", check=True)
    table = next((d/"sim").glob("*.parquet"))
    popnb(d, "train", "tabular", "--data", table, "--out", "run", check=True)
    frame = pd.read_parquet(table)
    (d/"folder").mkdir()
    (d/"notes.txt").write_text("no table\n")
    (d/"empty.csv").write_text("")
    (d/"binary.csv").write_bytes(bytes(range(256))*20)
    (d/"wrong.toml").write_text("colour = 'red'\n")
    frame.head(3).to_csv(d/"tiny.csv", index=False)
    frame.head(9)[["video_id", "title", "views"]].to_csv(d/"a.csv", index=False)
    pd.DataFrame({"video_id": ["x"], "likes": [3]}).to_csv(d/"other.csv", index=False)
    shutil.copytree(d/"run", d/"damaged")
    (d/"damaged"/"config.json").write_text('{"system": "tabu')
    return dict(T=str(table), RUN="run", V=str(next((d/"sim").rglob("*.mp4"), "missing.mp4")))

def popnb(d, *args, check=False):
    "Exit code, stdout and stderr of a command"
    env = os.environ | {"POPNB_PROGRESS": "0", "POPNB_STORE": str(d/"store"), "COLUMNS": "200", "NO_COLOR": "1"}
    code = "import sys; sys.argv[0] = 'popnb'; from popnb.cli.main import main; sys.exit(main())"
    r = subprocess.run([sys.executable, "-c", code, *map(str, args)], cwd=d, env=env, capture_output=True, text=True,
                       timeout=300, stdin=subprocess.DEVNULL)
    if check and r.returncode: sys.exit(f"popnb {' '.join(map(str, args))}: {r.stderr}")
    return r

def files(d): return {p.relative_to(d): p.stat().st_mtime_ns for p in d.rglob("*") if p.is_file() and "store" not in p.parts}

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", help="Write the answers here, as a Markdown table")
    p.add_argument("--only", default="", help="Only calls that contain this text")
    args = p.parse_args()
    with tempfile.TemporaryDirectory() as t:
        d = Path(t)
        names = world(d)
        before = files(d)
        def one(call):
            words = [names.get(w, w) for w in call.split()]
            try: return popnb(d, *words)
            except subprocess.TimeoutExpired as e: return subprocess.CompletedProcess(call, 124, "", f"no answer in {e.timeout} s")
        calls = [c for c in CALLS if args.only in c]
        with ThreadPoolExecutor(2) as two: answers = list(two.map(one, calls))
        changed = sorted(map(str, {k for k,v in files(d).items() if before.get(k) != v}))
        rows,bad = [],0
        for call,r in zip(calls, answers):
            said = [l for l in r.stderr.replace(t, "…").splitlines() if l.strip()]
            fault = ("succeeds" if r.returncode == 0 else "traceback" if "Traceback" in r.stderr+r.stdout else
                     "long" if len(said) > 5 else "signal" if r.returncode not in (1, 2) else "")
            bad += bool(fault)
            print(f"{fault or 'ok':9} {r.returncode:3} popnb {call}\n               {' / '.join(said)[:700]}")
            rows.append(f"| `popnb {call}` | {r.returncode} | {' '.join(said)[:400].replace('|', '/')} |")
        print(f"{len(calls)} calls, {bad} faults; files written: {changed or 'none'}")
        if args.out: Path(args.out).write_text("| call | exit code | answer |\n|---|---|---|\n"+"\n".join(rows)+"\n")
    return int(bool(bad or changed))

if __name__ == "__main__": sys.exit(main())
