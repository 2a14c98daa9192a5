"""Damaged feature stores: every record is right or missing, or the store is refused with one sentence; no signal.

    python bench/campaigns/stores.py [--rounds 500] [--seed 0] [--seconds S] [--out FILE]

A healthy store (records inside pages, records on pages of their own, free pages, two commits) is damaged in a copy: the data
file is cut, bits are flipped anywhere, in the page headers, in the meta pages or in the two trees, pages are zeroed,
exchanged or overwritten with another page, the lock file is replaced by other bytes. A child process then opens the store,
reads, replaces, deletes and adds records, and closes it. What counts as a failure: a signal, an exception of another kind, a
record with another content, a message of more than one sentence, more than 20 seconds."""
import argparse, json, shutil, sys, tempfile, time, traceback
from collections import Counter
from pathlib import Path
import numpy as np
from forked import in_child
from popnb.core import PopnbError
from popnb.features.store import Store

PAGE,N = 4096,120


def value(i): return dict(x=np.full(int(37*(i % 11)**2), i % 251, np.int16), text=f"record {i}")


def healthy(folder):
    with Store(folder) as s:
        for i in range(0, N, 10): s.put_many({f"{k:040d}": value(k) for k in range(i, i+10)})
        s.drop([f"{i:040d}" for i in range(0, N, 5)])
        s.put_many({f"{i:040d}": value(i) for i in range(0, N, 10)})
    return (Path(folder)/"data.mdb").read_bytes()


def trees(whole):
    "Numbers of the meta pages, inner pages and leaves"
    flags = np.frombuffer(whole, "<u2").reshape(-1, PAGE//2)[:, 5]
    number = np.frombuffer(whole, "<u8").reshape(-1, PAGE//8)[:, 0]
    return np.flatnonzero((number == np.arange(len(number))) & np.isin(flags, (1, 2, 8)))


def damage(whole, lock, inner, rng):
    "Name of a damage, data file, lock file"
    data,kind = bytearray(whole),("cut", "bit", "header bit", "meta bit", "tree bit", "many bits", "zeroed", "exchanged",
        "copied", "lock", "emptied", "garbage page")[rng.integers(12)]
    pages = len(data)//PAGE
    a,b = (int(o)*PAGE for o in rng.integers(pages, size=2))
    def flip(at): data[at] ^= 1 << rng.integers(8)
    if kind == "cut": del data[int(rng.integers(len(data))):]
    elif kind == "bit": flip(int(rng.integers(len(data))))
    elif kind == "header bit": flip(a + int(rng.integers(16)))
    elif kind == "meta bit": flip(int(rng.integers(2))*PAGE + int(rng.integers(152)))
    elif kind == "tree bit": flip(int(rng.choice(inner))*PAGE + int(rng.integers(PAGE)))
    elif kind == "many bits":
        for _ in range(int(rng.integers(2, 200))): flip(int(rng.choice(inner))*PAGE + int(rng.integers(PAGE)))
    elif kind == "zeroed": data[a:a+PAGE] = bytes(PAGE)
    elif kind == "exchanged": data[a:a+PAGE],data[b:b+PAGE] = data[b:b+PAGE],data[a:a+PAGE]
    elif kind == "copied": data[a:a+PAGE] = data[b:b+PAGE]
    elif kind == "lock": lock = rng.bytes(int(rng.choice([0, 1, 64, 192, 8192])))
    elif kind == "emptied": data = bytearray(rng.bytes(int(rng.choice([0, 1, 16, 200]))))
    else: data[a:a+PAGE] = rng.bytes(PAGE)
    return kind,bytes(data),lock


def use(folder):
    "What a process with a damaged store sees: `(outcome, right records, text)`"
    right = 0
    try:
        with Store(folder) as s:
            keys = [f"{i:040d}" for i in range(N)]
            for i,v in enumerate(s.get_many(keys)):
                if v is None: continue
                if not np.array_equal(v["x"], value(i)["x"]) or v["text"] != value(i)["text"]: return "wrong", right, str(i)
                right += 1
            lost = s.missing(keys)
            s.put_many({k: value(int(k)) for k in lost})
            s.put_many({f"{i:040d}": value(i+1) for i in range(0, N, 7)})
            s.drop([f"{i:040d}" for i in range(3, N, 7)])
            s.put_many({f"new {i}": value(i) for i in range(60)})
            for i in range(0, N, 7):
                got = s.get(f"{i:040d}")
                if got is None or not np.array_equal(got["x"], value(i+1)["x"]): return "wrong", right, f"after writing: {i}"
            len(s), s.keys(), s.stats()
        return "read", right, ""
    except PopnbError as e: return ("refused" if "\n" not in str(e) and len(str(e)) < 400 else "long message"), right, str(e)
    except BaseException as e: return "exception", right, "".join(traceback.format_exception_only(e))


def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    p.add_argument("--rounds", type=int, default=500)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--seconds", type=float, default=float("inf"))
    p.add_argument("--out", type=Path)
    a = p.parse_args(argv)
    work,start,counts,kinds,bad,all_right = Path(tempfile.mkdtemp()),time.time(),Counter(),Counter(),[],0
    whole = healthy(work/"s")
    lock,inner = (work/"s"/"lock.mdb").read_bytes(),trees(whole)
    for i in range(a.rounds):
        if time.time() - start > a.seconds: break
        kind,data,locked = damage(whole, lock, inner, np.random.default_rng([a.seed, i]))
        shutil.rmtree(work/"s")
        (work/"s").mkdir()
        (work/"s"/"store.json").write_text('{"format": "popnb feature store", "version": 1}')
        (work/"s"/"data.mdb").write_bytes(data)
        (work/"s"/"lock.mdb").write_bytes(locked)
        found,why = in_child(lambda: use(str(work/"s")), 20)
        outcome,right,text = found or (why, 0, "")
        counts[outcome] += 1
        kinds[f"{kind}: {outcome}"] += 1
        all_right += outcome == "read" and right == len(whole_keys())
        if outcome not in ("read", "refused"): bad.append(dict(round=i, kind=kind, outcome=outcome, text=text[-600:]))
    shutil.rmtree(work)
    result = dict(rounds=sum(counts.values()), seed=a.seed, seconds=round(time.time()-start, 1), outcomes=dict(counts),
        kinds=dict(sorted(kinds.items())), every_record_right=int(all_right), failures=bad)
    if a.out: a.out.write_text(json.dumps(result, indent=1)+"\n")
    for o in bad[:10]: print(o)
    print(f"stores: {result['rounds']} damaged stores, {counts['read']} read ({all_right} with every record), "
        f"{counts['refused']} refused with one sentence, {len(bad)} failures, {result['seconds']} s")
    return 1 if bad else 0


def whole_keys(): return [i for i in range(N) if i % 5 or not i % 10]


if __name__ == "__main__": sys.exit(main())
