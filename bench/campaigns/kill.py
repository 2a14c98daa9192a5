"""kill -9 at random moments: the same command again gives what an undisturbed one gives, to the last byte.

    python bench/campaigns/kill.py [--rounds 10] [--seed 0] [--only COMMAND ...] [--seconds S] [--out FILE]

Commands: train tabular, smtpd, r2plus1d, videollama2 (tiny networks), features, simulate, collect and download from the mock
site. Each is run twice undisturbed; files that differ between these two (times of day, seconds of an epoch) are compared
without the numbers and times in them. Then, `rounds` times, it is killed at a random moment, with --resume started again
where it has that option, until it succeeds; every second time it is killed twice. The processes are forked from one that has
imported the libraries, so that the kills fall into the work itself; each runs `popnb.cli.main` with the arguments of a shell.
What counts as a failure: other bytes, a file or a process that is left over, a message of more than one sentence."""
import argparse, contextlib, hashlib, json, os, random, re, shutil, signal, sqlite3, sys, tempfile, time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
import torch
torch.set_num_threads(1)
import popnb.cli.main
import popnb.training.engine, popnb.runs.train, popnb.simulation.dataset, popnb.media.download, popnb.youtube.collector
from popnb.youtube.mock_server import MockYouTube

TIMED = re.compile(rb"[0-9a-f]{16,}|\d+([.,:T+-]\d+)*(e-?\d+)?")


def commands(work, url):
    "Name -> (arguments, outputs, further arguments when it starts again)"
    table,common = str(work/"world"/"table.parquet"),["--store", "{out}/store", "--workers", "1"]
    def train(system, *more): return ["train", system, "--data", table, "--out", "{out}/run", *common, *more]
    tiny = ["--preset", "tiny", "--epochs", "3"]
    return {
        "train tabular": (train("tabular", "--encoders", "none", "--option", "members=2"), ["run"], []),
        "train smtpd": (train("smtpd", *tiny, "--label", "views-per-day", "--option", "ep=1", "--option", "inputs=[numbers]",
            "--option", "beside=[]"), ["run"], ["--resume"]),
        "train r2plus1d": (train("r2plus1d", *tiny), ["run"], ["--resume"]),
        "train videollama2": (train("videollama2", *tiny), ["run"], ["--resume"]),
        "features": (["features", "handmade", "--data", table, "--out", "{out}/f.csv", *common], ["f.csv"], []),
        "simulate": (["simulate", "--out", "{out}/world", "--n", "12", "--seed", "5", "--workers", "2"], ["world"], []),
        "collect": (["collect", "cooking", "pets", "--out", "{out}/shorts", "--per-bin", "3", "--endpoint", url], ["shorts"], []),
        "download": (["download", "--data", str(work/"shorts"/"table.parquet"), "--out", "{out}/thumbnails", "--table",
            "{out}/t.parquet", "--thumbnail-base", url], ["thumbnails", "t.parquet"], []),
    }


def start(args, log):
    "The number of a forked process that runs `popnb ARGS`"
    pid = os.fork()
    if pid: return pid
    os.setsid()
    fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    sys.stdout,sys.stderr = open(1, "w", closefd=False),open(2, "w", closefd=False)
    sys.argv = ["popnb", *args]
    sys.modules["__main__"].__dict__.pop("__file__", None)      # else worker processes import this script
    code = 0
    try: popnb.cli.main.main()
    except SystemExit as e: code = e.code if isinstance(e.code, int) else 1
    except BaseException:
        import traceback
        traceback.print_exc()
        code = 99
    sys.stdout.flush()
    os._exit(code)


def session_of(pid):
    "Processes of the session that `pid` opened"
    out = []
    for p in Path("/proc").iterdir():
        if not p.name.isdigit() or p.name == str(pid): continue
        with contextlib.suppress(OSError):
            fields = (p/"stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == pid and fields[0] != "Z": out.append(int(p.name))
    return out


def wait(pid, limit=300):
    "Exit code of a process, -9 if it was killed"
    end = time.monotonic() + limit
    while time.monotonic() < end:
        done,status = os.waitpid(pid, os.WNOHANG)
        if done: return os.waitstatus_to_exitcode(status)
        time.sleep(.005)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return -99


def content(out, names):
    "File below OUT -> bytes"
    found = {}
    for n in names:
        p = out/n
        for f in [p] if p.is_file() else sorted(o for o in p.rglob("*") if o.is_file()) if p.exists() else []:
            if f.name.endswith(("-wal", "-shm")): continue
            if f.name in ("ledger.sqlite", "command.toml"): continue        # they tell of the second attempt
            data = rows_of_sqlite(f) if f.suffix == ".sqlite" else f.read_bytes()
            if f.name == "downloads.csv": data = data.replace(b",skipped,", b",ok,")     # there already, or fetched now
            if f.name == "config.json": data = data.replace(b" --resume", b"")
            found[f.relative_to(out).as_posix()] = data
    return found


def outline(data):
    "Content without numbers, hashes and times, lines in one order: downloads end in another order each time"
    return sorted(TIMED.sub(b"#", re.sub(rb'"etag": "[^"]*"', b'"etag"', data)).splitlines())


def rows_of_sqlite(path):
    "The rows of all tables of an SQLite file as text"
    db = sqlite3.connect(path)
    names = sorted(o[0] for o in db.execute("SELECT name FROM sqlite_master WHERE type='table'"))
    out = "\n".join(f"{n} {row!r}" for n in names for row in db.execute(f"SELECT * FROM {n}"))
    db.close()
    return out.encode()


def compared(found, timed):
    "Files as they are compared"
    return {k: outline(v) if k in timed else hashlib.sha256(v).hexdigest() for k,v in found.items()}


def run_whole(args, out, log):
    out.mkdir(parents=True)
    t = time.time()
    code = wait(start([a.replace("{out}", str(out)) for a in args], log))
    if code: raise SystemExit(f"{args}: exit {code}\n{Path(log).read_text()[-2000:]}")
    return time.time() - t


def strays(out, names):
    "What stands beside the outputs and below them under a temporary name"
    beside = [p.name for p in out.iterdir() if p.name not in (*names, "store")]
    below = [p.relative_to(out).as_posix() for p in out.rglob("*")
        if re.search(r"\.(tmp|old|part|partial)$|^\..*\.lock$", p.name) and p.parent != out]
    return beside + [o for o in below if not o.startswith("store/")]


def one(name, args, names, again, work, rounds, rng, deadline):
    "The result of one command"
    log,base = str(work/"log.txt"),work/"out"
    shutil.rmtree(base, ignore_errors=True)
    clean = []
    for i in range(2):
        seconds = run_whole(args, base, log)
        clean.append(content(base, names))
        shutil.rmtree(base)
    timed = sorted(k for k in clean[0] if clean[0][k] != clean[1].get(k))
    skipped = [k for k in timed if Path(k).suffix in (".parquet", ".png")]
    whole = compared({k: v for k,v in clean[0].items() if k not in skipped}, timed)
    result = dict(seconds=round(seconds, 2), rounds=0, kills=0, inside=0, failures=[], compared=len(whole),
        without_numbers=[k for k in timed if k not in skipped], not_compared=skipped)
    for i in range(rounds):
        if time.time() > deadline: break
        base.mkdir(parents=True)
        filled,problem,more = [a.replace("{out}", str(base)) for a in args],None,[]
        for k in range(1 + i % 2):
            pid = start(filled + more, log)
            more = again
            time.sleep(rng.uniform(.02, seconds))
            inside = os.waitpid(pid, os.WNOHANG)[0] == 0
            result["kills"] += 1
            result["inside"] += inside
            if not inside: break
            os.kill(pid, signal.SIGKILL)
            wait(pid)
            end = time.time() + 12
            while (left := session_of(pid)) and time.time() < end: time.sleep(.05)
            if left:
                problem = f"{len(left)} processes are left over"
                for p in left: os.kill(p, signal.SIGKILL)
        code = wait(start(filled + again, log))
        text = Path(log).read_text(errors="replace")
        finished = code == 2 and re.search("holds a finished run|holds a .* run already|exists: choose", text)
        if code and not finished: problem = f"exit {code}: {text[-700:]}"
        found = content(base, names)
        got = compared({k: v for k,v in found.items() if k not in skipped}, timed)
        if not problem and got.keys() != whole.keys(): problem = f"files {sorted(got.keys() ^ whole.keys())[:8]}"
        if not problem and got != whole:
            odd = [k for k in whole if got[k] != whole[k]]
            lines = [o.decode(errors="replace")[:200] for k in odd if k in timed for o in set(got[k]) ^ set(whole[k])]
            problem = f"other bytes: {odd[:8]} {lines[:6]}"
        if not problem and (odd := strays(base, names)): problem = f"left over: {odd[:8]}"
        result["rounds"] += 1
        if problem: result["failures"].append(dict(round=i, problem=problem))
        shutil.rmtree(base)
    print(f"{name}: {result['rounds']} rounds, {result['inside']} of {result['kills']} kills inside the work,"
        f" {len(result['failures'])} failures", *result["failures"][:3], flush=True)
    return result


def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    p.add_argument("--rounds", type=int, default=10)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--only", nargs="*")
    p.add_argument("--seconds", type=float, default=float("inf"))
    p.add_argument("--out", type=Path)
    a = p.parse_args(argv)
    work,results,begin = Path(tempfile.mkdtemp()),{},time.time()
    os.environ |= {"YOUTUBE_API_KEY": "mock", "POPNB_PROGRESS": "0", "POPNB_STORE": str(work/"default_store")}
    port = 20_000 + os.getpid() % 30_000
    server = os.fork()
    if not server:
        with MockYouTube(60, 0, port, limits=dict.fromkeys(("search", "general", "stats"), 10**6)):
            while True: time.sleep(60)
    try:
        time.sleep(2)
        todo = commands(work, f"http://127.0.0.1:{port}")
        for args in (["simulate", "--out", str(work/"world"), "--n", "40", "--seed", "3", "--workers", "1"],
            [x.replace("{out}", str(work)) for x in todo["collect"][0]]):
            if code := wait(start(args, work/"log.txt")): raise SystemExit(f"{args}: {code} {(work/'log.txt').read_text()[-800:]}")
        todo = {k: v for k,v in todo.items() if not a.only or any(o in k for o in a.only)}
        for i,(name,(args,names,again)) in enumerate(todo.items(), 1):
            deadline = begin + a.seconds*i/len(todo)           # each has its share of the time
            results[name] = one(name, args, names, again, work, a.rounds, random.Random(f"{a.seed} {name}"), deadline)
    finally:
        os.kill(server, signal.SIGKILL)
        os.waitpid(server, 0)
        shutil.rmtree(work, ignore_errors=True)
    total = {k: sum(r[k] for r in results.values()) for k in ("rounds", "kills", "inside")}
    failures = sum(len(r["failures"]) for r in results.values())
    if a.out: a.out.write_text(json.dumps(dict(seed=a.seed, **total, failures=failures, commands=results), indent=1)+"\n")
    print(f"kill: {len(results)} commands, {total['rounds']} rounds, {total['inside']} of {total['kills']} kills inside the"
        f" work, {failures} failures")
    return 1 if failures else 0


if __name__ == "__main__": sys.exit(main())
