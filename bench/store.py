"""How fast is the feature store?

    python bench/store.py [--items 5000] [--rounds 3] [--clips 64] [--small 50000] [--only small planted …]
        [--seconds S] [--out bench/results/store.json]

1. Random reads of 16 KB records (8 x 1024, float16), one thread: the store against one .npy and one .safetensors file
   per record, all from the page cache; the store verifies a checksum on every read, the files do not.
2. Writing: one commit per record and one per 64 records, both flushed to the disk; one .npy per record, not flushed.
3. An epoch over 64 clips (720 x 1280, 10 s, 4 Mbit/s): their features from the store against decoding eight frames of
   each. The content keys are known, as they are from the second epoch on; hashing the files, once per process, is timed
   separately.
4. Hash functions for the content of files.
5. Random reads of many small records (2 kB: 1,024 numbers of 2 bytes), with and without the notes of the days of use; the
   goal is 30,000 a second.
6. `verify_store` of these records (rate), and of 20 damaged copies of a small store: bits flipped at random places of
   records, pages zeroed and exchanged, the file cut. All must be found, and nothing in the store as it was.

With --seconds, parts that would begin later are left out. Results of parts that did not run stay in the file.

Rounds alternate (A B C A B C ...) in one process; medians, their ratios and every single time go into the JSON.
"""
import argparse
import hashlib
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import safetensors.numpy

from timing import load, processor, rounds, versions
from popnb.core import read_json, write_json
from popnb.features import store as store_module
from popnb.features.store import Store, content_key
from popnb.features.store_upkeep import shrink_store, verify_store


def table(title, times, items, unit):
    "Print and return the median of each way, its rate and its time relative to the first way"
    first = statistics.median(next(iter(times.values())))
    print(f"\n{title}")
    out = {}
    for name,t in times.items():
        m = statistics.median(t)
        out[name] = dict(seconds=t, median_s=m, per_s=items/m, ratio=m/first)
        print(f"  {name:34}{items/m:14,.0f} {unit}/s   {m/first:10.2f} x the time of the first")
    return out


def wall_rounds(ways, n): return rounds(ways, n, time.perf_counter, warm=False)


def random_records(rng, keys):
    "A record of 16 KB for each key"
    return {k: dict(x=rng.standard_normal((8, 1024)).astype(np.float16)) for k in keys}


def random_reads(d, n, reps, rng):
    "Read `n` records in random order from the store and from one file per record"
    keys = [f"{i:06d}" for i in range(n)]
    store = Store(d/"store")
    npy,safe = d/"npy",d/"safetensors"
    npy.mkdir()
    safe.mkdir()
    for i in range(0, n, 500):
        batch = random_records(rng, keys[i:i+500])
        store.put_many(batch)
        for k,v in batch.items():
            np.save(npy/f"{k}.npy", v["x"])
            safetensors.numpy.save_file(v, safe/f"{k}.safetensors")
    order = rng.permutation(keys).tolist()
    def batches(): [store.get_many(order[i:i+64]) for i in range(0, n, 64)]
    assert all((store.get(k)["x"] == np.load(npy/f"{k}.npy")).all() for k in order[:50])
    return wall_rounds({
        "store.get_many, 64 at a time": batches,
        "store.get": lambda: [store.get(k) for k in order],
        ".npy per record": lambda: [np.load(npy/f"{k}.npy") for k in order],
        ".safetensors per record": lambda: [safetensors.numpy.load_file(safe/f"{k}.safetensors") for k in order]}, reps)


def writes(d, n, reps, rng):
    "Write `n` new records a round: 64 per commit, one per commit, one file per record"
    x = random_records(rng, "x")["x"]
    turn = [0]
    def new_keys():
        turn[0] += 1
        return [f"{turn[0]}-{i}" for i in range(n)]
    one,many,files = Store(d/"w1"),Store(d/"w64"),d/"wnpy"
    files.mkdir()
    def batches():
        keys = new_keys()
        for i in range(0, n, 64): many.put_many({k: x for k in keys[i:i+64]})
    return wall_rounds({
        "store.put_many, 64 a commit": batches,
        "store.put, one a commit": lambda: [one.put(k, x) for k in new_keys()],
        ".npy per record, no flush": lambda: [np.save(files/f"{k}.npy", x["x"]) for k in new_keys()]}, reps)


def make_clips(d, n, seconds=10, fps=30):
    "Draw one clip and copy it `n` times with a different padding box at the end: other keys, same decoding work"
    import av
    rng = np.random.default_rng(0)
    shape = (1280//16 + 2, 720//16 + seconds*fps//4 + 2, 3)
    pattern = rng.integers(0, 256, shape, np.uint8).repeat(16, 0).repeat(16, 1)
    grain = rng.integers(0, 24, (4, 1280, 720, 1), np.uint8)
    with av.open(str(d/"clip.mp4"), "w") as container:
        v = container.add_stream("libx264", rate=fps, options={"preset": "veryfast"})
        v.width,v.height,v.pix_fmt = 720,1280,"yuv420p"
        v.gop_size,v.bit_rate = 250,4_000_000
        for i in range(seconds*fps):
            pixels = pattern[i%16:i%16+1280, 4*i:4*i+720]//2 + grain[i%4] + 50
            container.mux(v.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(v.encode())
    data = (d/"clip.mp4").read_bytes()
    paths = [d/f"{i:03d}.mp4" for i in range(n)]
    for i,p in enumerate(paths): p.write_bytes(data + (24).to_bytes(4, "big") + b"free" + i.to_bytes(16, "big"))
    return paths,len(data)


def epochs(d, n, reps, rng):
    "Read the features of `n` clips from the store, or decode eight frames of each; also the cost of hashing the files"
    from popnb.media.video import frames
    (d/"clips").mkdir()
    clips,size = make_clips(d/"clips", n)
    time.sleep(2.1)   # hashes of files younger than two seconds are not cached
    identity = dict(model="encoder", version=1, policy="endpoints", n=8)
    start = time.perf_counter()
    keys = [content_key(c, **identity) for c in clips]
    hashing = time.perf_counter() - start
    store = Store(d/"epoch")
    store.put_many(random_records(rng, keys))
    times = wall_rounds({
        "features from the store": lambda: store.get_many(keys),
        "content keys, then the store": lambda: store.get_many([content_key(c, **identity) for c in clips]),
        "decode 8 frames per clip": lambda: [frames(c, 8) for c in clips]}, reps)
    return times,dict(hashing_once_s=hashing, bytes_per_clip=size, hash_gb_per_s=n*size/hashing/1e9)


def hashes(reps):
    "Hash 32 MB with each function"
    data = os.urandom(32<<20)
    names = ("sha256", "blake2b", "md5")
    ways = {name: (lambda name=name: hashlib.new(name, data).digest()) for name in names}
    return wall_rounds(ways, reps),len(data)


def small_reads(d, n, reps, rng):
    "Read small records, 32 a transaction as always, with and without the days of use; rate of a check of all of them"
    def key(i): return f"{i*0x9E3779B97F4A7C15 % 2**64:016x}{i:024x}"
    store = Store(d/"small")
    for at in range(0, n, 1000):
        x = rng.standard_normal((1000, 1024), np.float32).astype(np.float16)
        store.put_many({key(at+i): dict(x=v) for i,v in enumerate(x[:n-at])})
    store.close()                   # opened again, the table of days fits
    order = [key(int(i)) for i in rng.permutation(n)]
    def reads(with_days):
        len(store)
        env,inode,days = store_module._ENVS[store.folder]
        store_module._ENVS[store.folder] = env,inode,days if with_days else None
        try: assert None not in store.get_many(order)
        finally: store_module._ENVS[store.folder] = env,inode,days
    reads(True)
    times = wall_rounds({"get_many": lambda: reads(True), "get_many, no days of use": lambda: reads(False)}, reps)
    seconds = {}
    for name,f in {"verify": lambda: verify_store(store), "gc": lambda: shrink_store(store)}.items():
        start = time.perf_counter()
        f()
        seconds[name] = time.perf_counter() - start
    return times,seconds


def planted(d, rng):
    "Damages that `verify_store` finds, of 20, by kind: found and planted"
    with Store(d/"planted") as store:
        for i in range(0, 300, 10):
            store.put_many({f"{k:040d}": dict(x=rng.integers(0, 99, 40*(k % 40)**2//20 + 1)) for k in range(i, i+10)})
    data,counts = d/"planted"/"data.mdb",{}
    assert verify_store(store) | dict(folder="") == dict(folder="", records=300, damaged=[], pages="", deleted=0)
    whole = data.read_bytes()
    for how in ["bit"]*14 + ["zeroed"]*2 + ["exchanged"]*2 + ["cut"]*2:
        key = f"{int(rng.integers(300)):040d}"
        raw = store._run(lambda txn: bytes(txn.get(key.encode())))
        store.close()
        damaged = bytearray(whole)
        at,places = whole.find(raw),[]
        while at >= 0:              # a record within a page also stands in copies of that page which are free now
            places.append(at)
            at = whole.find(raw, at+1)
        offset = int(rng.integers(len(raw)))
        for at in places:
            page = (at+offset)//4096*4096
            if how == "bit": damaged[at+offset] ^= 1 << int(rng.integers(8))
            if how == "zeroed": damaged[page:page+4096] = bytes(4096)
            if how == "exchanged": damaged[page:page+4096],damaged[:4096] = damaged[:4096],damaged[page:page+4096]
        data.write_bytes(damaged[:int(rng.integers(len(whole)))] if how == "cut" else damaged)
        result = verify_store(store)
        store.close()
        data.write_bytes(whole)
        found,of = counts.get(how, (0, 0))
        counts[how] = found + (key in result["damaged"] or result["pages"] != ""),of+1
    return counts


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--items", type=int, default=5000, help="records of part 1")
    p.add_argument("--rounds", type=int, default=3, help="repetitions of each measurement")
    p.add_argument("--clips", type=int, default=64, help="clips of part 3")
    p.add_argument("--small", type=int, default=50_000, help="records of part 5")
    p.add_argument("--only", nargs="*", default=["small", "planted", "reads", "writes", "hashes", "epoch"], help="parts")
    p.add_argument("--seconds", type=float, default=float("inf"), help="begin no part after so many seconds")
    p.add_argument("--out", type=Path, default=Path(__file__).parent/"results"/"store.json", help="JSON file")
    a = p.parse_args()
    d,rng,begin = Path(tempfile.mkdtemp()),np.random.default_rng(0),time.monotonic()
    result = read_json(a.out) if a.out.exists() else {}
    parts = dict(small=part_small, planted=part_planted, reads=part_reads, writes=part_writes, hashes=part_hashes, epoch=part_epoch)
    try:
        for name in a.only:
            if time.monotonic() - begin < a.seconds: parts[name](result, d, a, rng)
    finally: shutil.rmtree(d)
    write_json(a.out, result)
    print(f"\n{a.out}")


def about(a):
    return dict(
        machine=dict(platform=platform.platform(), processor=processor(), cpus=os.cpu_count(), load=load()),
        versions=versions(("popnb", "numpy", "lmdb", "safetensors", "av")),
        settings=dict(items=a.items, rounds=a.rounds, clips=a.clips, small=a.small))


def part_small(result, d, a, rng):
    times,seconds = small_reads(d, a.small, a.rounds, rng)
    found = table(f"Random reads, {a.small:,} records of 2 kB", times, a.small, "records")
    result["small_reads"] = found | dict(about=about(a))
    for name,s in seconds.items():
        result["small_reads"][name] = dict(seconds=s, per_s=a.small/s)
        print(f"  {name:34}{a.small/s:14,.0f} records/s")


def part_planted(result, d, a, rng):
    result["planted"] = {k: dict(found=n, planted=of) for k,(n,of) in planted(d, rng).items()}
    found,of = (sum(o[k] for o in result["planted"].values()) for k in ("found", "planted"))
    print(f"\nverify found {found} of {of} planted corruptions")


def part_reads(result, d, a, rng):
    result |= about(a)
    times = random_reads(d, a.items, a.rounds, rng)
    result["random_reads"] = table(f"Random reads, {a.items:,} records of 16 KB", times, a.items, "records")


def part_writes(result, d, a, rng):
    times = writes(d, 512, a.rounds, rng)
    result["writes"] = table("Writes, 512 records of 16 KB", times, 512, "records")


def part_hashes(result, d, a, rng):
    times,size = hashes(a.rounds)
    result["hashes"] = table("Hashing, MB", times, size/1e6, "MB")


def part_epoch(result, d, a, rng):
    times,facts = epochs(d, a.clips, a.rounds, rng)
    title = f"An epoch of {a.clips} clips, 720x1280, 10 s, 4 Mbit/s"
    result["epoch"] = table(title, times, a.clips, "clips") | facts
    megabytes = a.clips*facts["bytes_per_clip"]/1e6
    print(f"  hashing the files, once per process: {facts['hashing_once_s']:.2f} s for {megabytes:.0f} MB")


if __name__ == "__main__": sys.exit(main())
