"""Full disks at many moments, read-only folders, no home folder, a clock that jumps.

    python bench/campaigns/disk.py [--moments 40] [--seed 0] [--only CASE ...] [--seconds S] [--out FILE]

Needs the right to mount (root). OUT and the feature store lie on a small disk in memory. A command runs undisturbed once, to
see what it needs and makes; then on disks of `moments` sizes from too small for anything to a little too small. Each run has
to end with one sentence and no signal, and OUT is absent, or whole, or can be resumed: the disk is enlarged, the same command
runs again, and gives the same files. On a read-only disk the command says so and changes nothing. Without a home folder, and
with a clock that jumps back and forth by hours, the results are those of an undisturbed run."""
import argparse, contextlib, json, os, random, shutil, subprocess, sys, tempfile, time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from kill import commands, compared, content, start, strays, wait
from popnb.registry import STAND_IN

CASES = ("train tabular", "train smtpd", "features", "simulate")
DEFECT = ("Traceback", "defect of popnb")


def mount(place, size):
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={int(size)}", "tmpfs", str(place)], check=True)


def remount(place, options): subprocess.run(["mount", "-o", f"remount,{options}", str(place)], check=True)


def unmount(place): subprocess.run(["umount", "-l", str(place)], check=True, stderr=subprocess.DEVNULL)


def used(place):
    s = os.statvfs(place)
    return (s.f_blocks-s.f_bfree)*s.f_frsize


def jumps(rng):
    "Make the clock of this process jump at every reading"
    real,real_ns,shift = time.time,time.time_ns,[0.]
    def jump():
        if rng.random() < .3: shift[0] = rng.uniform(-1e5, 1e5)
        return shift[0]
    time.time = lambda: real()+jump()
    time.time_ns = lambda: real_ns()+int(jump()*1e9)


def run(args, log, before=None):
    "Exit code and output of a forked command; `before` changes a process between"
    if not before: return wait(start(args, log)),Path(log).read_text(errors="replace")
    pid = os.fork()
    if not pid:
        before()
        os._exit(wait(start(args, log)) & 0xff)
    return wait(pid),Path(log).read_text(errors="replace")


def sentence(code, text):
    "What is wrong with the end of a command that met a full or read-only disk; empty if nothing is"
    if code < 0: return f"signal {-code}"
    if any(o in text for o in DEFECT): return text[-900:]
    lines = [o for o in text.splitlines() if o.startswith("popnb: ") and not o.startswith("popnb: note") and STAND_IN not in o]
    return "" if code == 0 or len(lines) == 1 else f"exit {code}, {len(lines)} sentences: {text[-900:]}"


def usual(base, names, timed, skipped):
    return compared({k: v for k,v in content(base, names).items() if k not in skipped}, timed)


def one(name, args, names, again, work, moments, rng, deadline):
    "The result of one command"
    place,log = work/"disk",str(work/"log.txt")
    base,result = place/"out",dict(moments=0, refused=0, finished=0, failures=[])
    filled = [a.replace("{out}", str(base)) for a in args]
    clean = []
    mount(place, 600e6)
    for _ in range(2):
        base.mkdir()
        code,text = run(filled, log)
        if code: raise SystemExit(f"{name}: exit {code}\n{text[-1500:]}")
        clean.append(content(base, names))
        peak = used(place)
        shutil.rmtree(base)
    unmount(place)
    timed = sorted(k for k in clean[0] if clean[0][k] != clean[1].get(k))
    skipped = [k for k in timed if Path(k).suffix in (".parquet", ".png")]
    whole = compared({k: v for k,v in clean[0].items() if k not in skipped}, timed)
    def bad(what, problem):
        if problem: result["failures"].append(dict(case=what, problem=str(problem)[:1200]))
    def same(what):
        got = usual(base, names, timed, skipped)
        bad(what, got != whole and f"other files or bytes: {[k for k in {*got, *whole} if got.get(k) != whole.get(k)][:8]}")
    top = peak + (17 << 20)*name.startswith("train")
    for i in range(moments):
        if time.time() > deadline: break
        size = 1.2e6 + (top-1.2e6)*(i+rng.random())/moments
        mount(place, size)
        base.mkdir()
        code,text = run(filled, log)
        result["moments"] += 1
        result["finished" if code == 0 else "refused"] += 1
        bad(f"{size/1e6:.2f} MB", sentence(code, text))
        remount(place, f"size={int(600e6)}")
        if code:
            code,text = run(filled+again, log)
            bad(f"{size/1e6:.2f} MB, again", code and f"exit {code}: {text[-900:]}")
        same(f"{size/1e6:.2f} MB")
        bad(f"{size/1e6:.2f} MB", strays(base, names))
        unmount(place)
    mount(place, 600e6)
    base.mkdir()
    remount(place, "ro")
    code,text = run(filled, log)
    bad("read-only", code <= 0 and f"exit {code}" or sentence(code, text))
    unmount(place)
    for what,before in (("no home", no_home), ("clock", jumping_clock(rng))):
        mount(place, 600e6)
        base.mkdir()
        code,text = run(filled, log, before)
        bad(what, code and f"exit {code}: {text[-900:]}")
        if not code: same(what)
        unmount(place)
    print(f"{name}: {result['moments']} disks, {result['refused']} refused, {result['finished']} finished,"
        f" {len(result['failures'])} failures", *result["failures"][:4], flush=True)
    return result


def no_home():
    for k in ("HOME", "XDG_CACHE_HOME", "POPNB_STORE"): os.environ.pop(k, None)


def jumping_clock(rng):
    def clock(): jumps(random.Random(rng.random()))
    return clock


def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    p.add_argument("--moments", type=int, default=40)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--only", nargs="*", default=CASES)
    p.add_argument("--seconds", type=float, default=float("inf"))
    p.add_argument("--out", type=Path)
    a = p.parse_args(argv)
    work,results,begin = Path(tempfile.mkdtemp()),{},time.time()
    os.environ |= {"POPNB_PROGRESS": "0", "POPNB_STORE": str(work/"default_store")}
    try:
        log = str(work/"log.txt")
        code,text = run(["simulate", "--out", str(work/"world"), "--n", "40", "--seed", "3", "--workers", "1"], log)
        if code: raise SystemExit(text)
        todo = {k: v for k,v in commands(work, "http://127.0.0.1:1").items() if k in a.only}
        for i,(name,(args,names,again)) in enumerate(todo.items(), 1):
            deadline = begin + a.seconds*i/len(todo)           # each has its share of the time
            results[name] = one(name, args, names, again, work, a.moments, random.Random(a.seed), deadline)
    finally:
        with contextlib.suppress(Exception): unmount(work/"disk")
        shutil.rmtree(work, ignore_errors=True)
    failures = sum(len(r["failures"]) for r in results.values())
    if a.out: a.out.write_text(json.dumps(dict(seed=a.seed, failures=failures, commands=results), indent=1)+"\n")
    print(f"disk: {len(results)} commands, {sum(r['moments'] for r in results.values())} full disks, {failures} failures")
    return 1 if failures else 0


if __name__ == "__main__": sys.exit(main())
