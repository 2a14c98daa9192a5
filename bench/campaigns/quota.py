"""Random schedules against the quota ledger: is a bucket ever charged above its limit?

    python bench/campaigns/quota.py [--rounds 1000] [--seconds S] [--seed 0] [--out FILE]

A schedule starts a mock server with small buckets and two to five client processes that share one ledger. The server fails,
answers late, refuses a bucket with units left, and counts every call by the day of its arrival; clients are killed, others
start late; the clock of all runs on by seconds or hours, often to the seconds before midnight in California. In every third
schedule the clients' clocks also jump, by up to 400 days either way, without the server.

Checked in each: no day of the ledger holds more than the bucket; every call that arrived is in the ledger. Without jumps also:
no day of the server has more arrivals than the bucket, and after a refusal no client calls again before midnight, but those
that were on their way. A clock that is wrong by hours counts on another day than the server: then only the server's own
refusal ends the calls, and the days above the bucket are counted."""
import argparse, json, multiprocessing, os, random, shutil, signal, socket, sys, tempfile, time
from collections import Counter
from datetime import datetime, timedelta, timezone
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
os.environ["YOUTUBE_API_KEY"] = "mock"
from popnb.youtube import mock_server                                                    # noqa: E402
from popnb.youtube.client import KeyRefused, Unreachable, YouTube                        # noqa: E402
from popnb.youtube.quota import BUCKETS, Ledger, QuotaExhausted, next_reset, pacific_day  # noqa: E402

START = datetime(2026, 10, 28, 12, tzinfo=timezone.utc)      # the days until the clocks go back have 24 hours, one has 25
PLAIN = ("500", "503", "429", "rate", "404", "html", "no-items", "truncated", "drop", "redirect", "slow")
CALLS = {"videos.list": dict(part="id", id="a"*11), "search.list": dict(part="id", q="pets"),
         "channels.list": dict(part="id", id="UC"+"x"*22)}
BUCKET = {"search.list": "search"}
FORK = multiprocessing.get_context("fork")
FLIGHT = 20.      # longest time of a call on its way, seconds


class World:
    "Clocks that all processes share, and since when each client has a call on its way (0: none)"
    def __init__(self, clients):
        self.now,self.skew,self.flying = (FORK.RawValue("d", 0.), FORK.RawValue("d", 0.), FORK.RawArray("d", clients))
        self.lock = FORK.Lock()

    def time(self, skew=0.): return START + timedelta(seconds=self.now.value+skew)


def client(k, world, path, limits, url, seed, calls, delay):
    "Make calls until there are enough; runs in a process of its own"
    time.sleep(delay)
    rng,clock = random.Random(seed),lambda: world.time(world.skew.value)
    class Noted(Ledger):
        def reserve(self, *args):
            with world.lock: world.flying[k] = world.now.value+1e-9
            super().reserve(*args)
    yt = YouTube(Noted(path, limits, clock=clock), url, clock=clock, sleep=lambda s: time.sleep(.002), seed=seed,
                 attempts=3, timeout=2)
    try_once = yt._try_once
    def landed(*args):
        try: return try_once(*args)
        finally: world.flying[k] = 0
    yt._try_once = landed
    for _ in range(calls):
        method = rng.choice(list(CALLS))
        try: yt.request(method, **CALLS[method])
        except (QuotaExhausted, Unreachable): time.sleep(.001)
        except KeyRefused as e: raise SystemExit(f"the mock server refused the key: {e}")
        finally: world.flying[k] = 0


def watched(server, arrivals, refusals):
    "Count arrivals by day, and those after a refusal of the same day"
    charge,due = mock_server._charge,mock_server._due_fault
    def counted(self, method, q):
        if self is server:
            bucket,day = BUCKET.get(method, "general"),pacific_day(self.now)
            with self.lock:
                arrivals[bucket, day] += 1
                if (bucket, day) in refusals: refusals[bucket, day] += 1
        return charge(self, method, q)
    def refused(self, method):
        fault = due(self, method)
        if fault in ("quota", "quota-429") and self is server:
            day,early = pacific_day(self.now),pacific_day(self.now-timedelta(seconds=FLIGHT))
            if day == early: refusals.setdefault((BUCKET.get(method, "general"), day), 0)
        return fault
    mock_server._charge,mock_server._due_fault = counted,refused
    return charge,due


def move(rng, world, jumps):
    "Let the clocks run on, a call on its way takes at most `FLIGHT` seconds; returns whether the clients' clock jumped"
    with world.lock:
        t = world.time()
        left = (next_reset(t)-t).total_seconds()
        step = rng.choice([.1, .5, 2, 60, max(0, left-rng.uniform(0, 5)), left+rng.uniform(0, 2)])
        since = min((o for o in world.flying if o), default=None)
        world.now.value += step if since is None else max(0, min(step, since+FLIGHT-world.now.value))
        if not jumps or rng.random() > .2: return False
        world.skew.value = rng.choice([0, 0, rng.uniform(-60, 60), rng.uniform(-9e4, 9e4), rng.uniform(-3.5e7, 3.5e7)])
        return True


def kill(rng, world, procs):
    "Kill a client that holds no lock; what it sent arrives before the clock runs on"
    if not (alive := [k for k,p in enumerate(procs) if p.is_alive()]): return 0
    k = rng.choice(alive)
    with world.lock: os.kill(procs[k].pid, signal.SIGKILL)
    procs[k].join()
    time.sleep(.05)
    world.flying[k] = 0
    return 1


def schedule(seed, folder):
    "One schedule; what went wrong, and counts"
    rng,counts,wrong = random.Random(seed),Counter(),[]
    jumps,n = seed % 3 == 2,rng.randint(2, 5)
    limits = {"search": rng.randint(1, 6), "general": rng.randint(2, 15)}
    world,path,arrivals,refusals = World(n),folder/"ledger.sqlite",Counter(),{}
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    delays = [0 if k < 2 else rng.uniform(0, .4) for k in range(n)]
    url = f"http://127.0.0.1:{port}"
    procs = [FORK.Process(target=client, daemon=True, args=(k, world, path, limits, url, f"{seed} {k}", 50, d))
             for k,d in enumerate(delays)]
    for p in procs: p.start()                     # before the server's threads: a fork copies no thread
    server = mock_server.MockYouTube(3, port=port, now=world.time, limits=limits)
    server.slow = .02
    old = watched(server, arrivals, refusals)
    try:
        end = time.monotonic()+30
        while any(p.is_alive() for p in procs) and time.monotonic() < end:
            time.sleep(rng.uniform(.001, .02))
            counts["jumps"] += move(rng, world, jumps)
            if rng.random() < .3: server.inject(rng.choice(PLAIN), rng.randint(1, 3))
            if rng.random() < .04: server.inject(rng.choice(["quota", "quota-429"]), method=rng.choice(list(CALLS)))
            if rng.random() < .015: counts["kills"] += kill(rng, world, procs)
        if any(p.is_alive() for p in procs): wrong.append("a client did not end")
    finally:
        for p in procs: p.kill()
        for p in procs: p.join()
        if any(p.exitcode not in (0, -signal.SIGKILL) for p in procs): wrong.append("a client failed")
        server.close()
        mock_server._charge,mock_server._due_fault = old
    return wrong + judge(path, limits, arrivals, refusals, n, jumps, counts), counts


def judge(path, limits, arrivals, refusals, n, jumps, counts):
    "Compare the ledger with what arrived"
    import sqlite3
    db = sqlite3.connect(path)
    spent = {(b, d): u for d,b,u in db.execute("SELECT day, bucket, units FROM spent")}
    db.close()
    limits,wrong = {**BUCKETS, **limits},[]
    for (b, d),u in spent.items():
        if u > limits[b]: wrong.append(f"the ledger holds {u} of {limits[b]} for {b} on {d}")
    for b in limits:
        there,came = sum(u for (k, _),u in spent.items() if k == b),sum(u for (k, _),u in arrivals.items() if k == b)
        if there < came: wrong.append(f"{came} calls of {b} arrived, {there} are in the ledger")
    if not jumps:
        for (b, d),u in arrivals.items():
            if u > limits[b]: wrong.append(f"{u} calls of {b} arrived on {d}, the bucket holds {limits[b]}")
        late = max(refusals.values(), default=0)
        # between a refusal and its record the other clients may end a call and start one
        if late > 3*n+3*counts["kills"]: wrong.append(f"{late} calls after a refusal by {n} clients")
    counts.update(calls=sum(arrivals.values()), refusals=len(refusals), days=len({d for _,d in arrivals}),
                  full=sum(u == limits[b] for (b, _),u in spent.items()),
                  above=sum(u > limits[b] for (b, _),u in arrivals.items()))
    return wrong


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--rounds", type=int, default=1000, help="number of schedules")
    p.add_argument("--seconds", type=float, default=float("inf"), help="start no schedule after so many seconds")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--out", help="JSON file of the results")
    o = p.parse_args()
    begun,total,failures,tried = time.monotonic(),Counter(),{},0
    for k in range(o.rounds):
        if time.monotonic()-begun > o.seconds: break
        folder = Path(tempfile.mkdtemp(prefix="quota-"))
        wrong,counts = schedule(o.seed*1_000_000+k, folder)
        shutil.rmtree(folder)
        total,tried = total+counts+Counter(jumping=k % 3 == 2, above_while_jumping=counts["above"]*(k % 3 == 2)),tried+1
        if wrong:
            failures[k] = wrong
            print(f"schedule {k}: {'; '.join(wrong)}", flush=True)
    out = {"seed": o.seed, "schedules": tried, "seconds": round(time.monotonic()-begun), "failed": len(failures),
           "counts": dict(total), "failures": failures}
    if o.out: Path(o.out).write_text(json.dumps(out, indent=1) + "\n")
    print(f"{tried} schedules, {total['calls']:,} calls, {total['kills']} kills, {total['refusals']} refusals, "
          f"{total['jumps']} jumps of the clock, {total['full']} buckets emptied; days above a bucket: "
          f"{total['above']-total['above_while_jumping']}, with jumping clocks {total['above_while_jumping']}; "
          f"{len(failures)} schedules failed, {out['seconds']} s")
    return 1 if failures else 0


if __name__ == "__main__": sys.exit(main())
