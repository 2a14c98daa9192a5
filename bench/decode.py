"""How fast are chosen frames read, against what else there is?

    python bench/decode.py --out bench/results/decode.json            # all cells, about 20 minutes on 2 cores
    python bench/decode.py --quick                            # 360p alone, about a minute

Every method opens the file, reads 8 frames (segment centres) and closes it. Methods take turns within one process (ABAB), so
that a busy machine slows all of them alike; figures are medians, ratios are of medians with a bootstrap interval of 90 %.
Processor time is reported beside wall time: it hardly depends on what else the machine does. Pixels are compared before
anything is timed. Memory is the peak of a fresh process over what the imports take.
"""
import argparse, itertools, json, os, platform, resource, statistics, subprocess, sys, tempfile, time
from pathlib import Path
import numpy as np

SIZES = {"360p": (360, 640, 1.2e6), "720p": (720, 1280, 7.5e6), "1080p": (1080, 1920, 12e6)}
ENCODERS = {"h264": ("libx264", "mp4", {}), "hevc": ("libx265", "mp4", {"preset": "fast", "x265-params": "log-level=none"}),
            "vp9": ("libvpx-vp9", "webm", {"deadline": "realtime", "cpu-used": "6"}), "av1": ("libsvtav1", "mp4", {"preset": "10"})}
CELLS = [("h264", s, g) for s in SIZES for g in (30, 250)] + [(c, "360p", g) for c in ("hevc", "vp9", "av1") for g in (30, 250)]
INDEXED = ("decord get_batch", "torchcodec 1 thread", "torchcodec 2 threads", "pyav seek")
READ_ALL = ("decord read all", "pyav read all")

# ---------------------------------------------------------------- clips

def picture(w, h, n, seed=0):
    "Texture under a wandering camera, a patch that moves across it, sensor noise"
    from PIL import Image
    rng = np.random.default_rng(seed)
    def smooth(h, w, grain): return np.asarray(Image.fromarray(rng.integers(0, 256, (h//grain+1, w//grain+1, 3), dtype=np.uint8)).resize((w, h), Image.BICUBIC)).astype(np.int16)
    back,patch = smooth(h+512, w+512, 8),smooth(h//4, w//3, 6)
    noise = [rng.normal(0, 6, (h, w, 1)).astype(np.int16) for _ in range(6)]
    for i in range(n):
        dx,dy = int(256+200*np.sin(i/60)),int(256+200*np.cos(i/80))
        f = back[dy:dy+h, dx:dx+w] + noise[i%6]
        y,x = int((h-h//4)*(.5+.45*np.sin(i/25))),int((w-w//3)*(.5+.45*np.cos(i/18)))
        f[y:y+h//4, x:x+w//3] = patch + noise[i%6][:h//4, :w//3]
        yield f.clip(0, 255).astype(np.uint8)

def make(folder, codec, size, gop, seconds=15, fps=30):
    "The clip of a cell; made once"
    import av
    w,h,rate = SIZES[size]
    encoder,ext,options = ENCODERS[codec]
    path = folder/f"{codec}_{size}_{gop}_{seconds}s.{ext}"
    if path.exists(): return path
    if codec == "hevc": options = options | {"x265-params": options["x265-params"] + f":keyint={gop}:min-keyint={min(gop, 25)}"}
    tmp = path.with_suffix(f".part.{ext}")
    with av.open(str(tmp), "w") as box:
        s = box.add_stream(encoder, rate=fps, options=options)
        s.width,s.height,s.pix_fmt,s.bit_rate,s.gop_size = w,h,"yuv420p",int(rate*(1 if codec == "h264" else .6)),gop
        for a in picture(w, h, seconds*fps):
            for p in s.encode(av.VideoFrame.from_ndarray(a, format="rgb24")): box.mux(p)
        for p in s.encode(): box.mux(p)
    return tmp.rename(path)

# ---------------------------------------------------------------- methods: (path, indices) -> uint8 (n, 3, H, W)

def popnb_exact(path, idx):
    from popnb.media.video import frames
    return frames(path, len(idx), "segment_centres").pixels

def popnb_keyframe(path, idx):
    from popnb.media.video import frames
    return frames(path, len(idx), "keyframe").pixels

def decord_batch(path, idx):
    import decord
    return decord.VideoReader(str(path)).get_batch(list(idx)).asnumpy().transpose(0, 3, 1, 2)

def decord_all(path, idx):
    import decord
    reader = decord.VideoReader(str(path))
    return np.stack([reader[i].asnumpy() for i in range(len(reader))])[idx].transpose(0, 3, 1, 2)

def torchcodec_at(threads):
    def read(path, idx):
        from torchcodec.decoders import VideoDecoder
        return VideoDecoder(str(path), num_ffmpeg_threads=threads, seek_mode="exact").get_frames_at([int(i) for i in idx]).data.numpy()
    return read

def _rgb(frame): return frame.to_ndarray(format="rgb24").transpose(2, 0, 1)

def pyav_seek(path, idx):
    "Seek before each frame, decode up to it: what careful users of PyAV write"
    import av
    with av.open(str(path)) as box:
        s = box.streams.video[0]
        s.thread_type = "AUTO"
        start,step,out = s.start_time or 0,1/(s.average_rate*s.time_base),[]
        for i in idx:
            at = start + round(int(i)*step)
            box.seek(at, stream=s)
            out.append(_rgb(next(f for f in box.decode(s) if f.pts + .5*step > at)))
        return np.stack(out)

def pyav_all(path, idx):
    import av
    with av.open(str(path)) as box:
        box.streams.video[0].thread_type = "AUTO"
        return np.stack([f.to_ndarray(format="rgb24") for f in box.decode(video=0)])[idx].transpose(0, 3, 1, 2)

METHODS = {"popnb": popnb_exact, "popnb keyframe": popnb_keyframe, "decord get_batch": decord_batch, "torchcodec 1 thread": torchcodec_at(1),
           "torchcodec 2 threads": torchcodec_at(2), "pyav seek": pyav_seek, "decord read all": decord_all, "pyav read all": pyav_all}

# ---------------------------------------------------------------- timing

def clock():
    r = resource.getrusage(resource.RUSAGE_SELF)
    return time.perf_counter(),r.ru_utime+r.ru_stime

def usable(path, idx):
    "Methods that give the pixels of a full decode on this file; the others and why not"
    want,ok,out = METHODS["pyav read all"](path, idx),[],{}
    for name,f in METHODS.items():
        try:
            got = f(path, idx)
            same = name == "popnb keyframe" or (got.shape == want.shape and np.array_equal(got, want))
            if same: ok.append(name)
            else: out[name] = "other pixels" if got.shape == want.shape else f"other shape {got.shape}"
        except Exception as e: out[name] = f"fails ({type(e).__name__})"
    return ok,out

def measure(path, idx, names, reps, slow_reps):
    "Wall and processor seconds of each method, in turns"
    took = {o: [] for o in names}
    for rep in range(reps):
        for name in names:
            if name in READ_ALL and rep >= slow_reps: continue
            a = clock()
            METHODS[name](path, idx)
            b = clock()
            took[name].append((b[0]-a[0], b[1]-a[1]))
    return took

def ratio(a, b, k, seed=0):
    "Median of `a` over median of `b` (k: 0 wall, 1 processor) with a bootstrap interval of 90 %"
    a,b,rng = np.array(a)[:, k],np.array(b)[:, k],np.random.default_rng(seed)
    r = [np.median(rng.choice(a, len(a)))/np.median(rng.choice(b, len(b))) for _ in range(1000)]
    return dict(value=float(np.median(a)/np.median(b)), low=float(np.quantile(r, .05)), high=float(np.quantile(r, .95)))

def geo(v): return float(np.exp(np.mean(np.log(list(v))))) if v else float("nan")

# ---------------------------------------------------------------- one cell

def cell(path, reps, slow_reps):
    from popnb.media.video import frames
    from popnb.media.frame_sampling import segment_centres
    exact,keys = frames(path, 8, "segment_centres"),frames(path, 8, "keyframe")
    idx = segment_centres(exact.info.frames, 8)
    assert (exact.indices == idx).all()
    ok,out = usable(path, idx)
    took = measure(path, idx, ok, reps, slow_reps)
    delta = np.abs(keys.times - exact.times)
    i = exact.info
    res = dict(file=dict(codec=i.codec, width=i.width, height=i.height, frames=i.frames, fps=i.fps, keyframes=i.keyframes, mb=i.size_bytes/1e6, spare=float(i.index.disposable.mean())),
        ms={o: dict(wall=1e3*statistics.median(t[0] for t in v), fastest=1e3*min(t[0] for t in v), cpu=1e3*statistics.median(t[1] for t in v), n=len(v)) for o,v in took.items()},
        left_out=out, keyframe_seconds_off=dict(mean=float(delta.mean()), max=float(delta.max()), distinct=int(len(set(keys.indices.tolist())))))
    for k,kind in enumerate(("wall", "cpu")):
        res[kind] = {o: ratio(took[o], took["popnb"], k) for o in ok if not o.startswith("popnb")}
        best = min((o for o in INDEXED if o in ok), key=lambda o: res["ms"][o][kind])
        res[kind]["best single"] = res[kind][best] | dict(name=best)
        if "decord get_batch" in ok: res[kind]["keyframe over decord get_batch"] = ratio(took["decord get_batch"], took["popnb keyframe"], k)
        res[kind]["keyframe over exact"] = ratio(took["popnb"], took["popnb keyframe"], k)
    return res

# ---------------------------------------------------------------- memory

def peak():
    "MB at the peak of this process; `ru_maxrss` alone would hand down the peak of the parent"
    try: return next(int(l.split()[1])/1024 for l in open("/proc/self/status") if l.startswith("VmHWM"))
    except (OSError, StopIteration): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024

CHILD = """
import sys
sys.path.insert(0, {here!r})
import numpy as np, decode
from decode import peak
from popnb.media.frame_sampling import segment_centres
{imports}
idx,base = segment_centres(450, 8),peak()
decode.METHODS[{name!r}]({path!r}, idx)
print(base, peak())
"""

def memory(path, name):
    "MB at the peak and after the imports, in a fresh process"
    imports = "import decord" if "decord" in name else "from torchcodec.decoders import VideoDecoder" if "torchcodec" in name else "import av, popnb.media.video"
    code = CHILD.format(here=str(Path(__file__).parent), imports=imports, name=name, path=str(path))
    r = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if r.returncode: return dict(error=r.stderr.strip().split("\n")[-1][:200])
    base,peak = map(float, r.stdout.split())
    return dict(imports=base, peak=peak, over=peak-base)

# ---------------------------------------------------------------- report

def machine():
    import importlib.metadata as m
    cpu = next((l.split(":")[1].strip() for l in open("/proc/cpuinfo") if "model name" in l), platform.processor()) if os.path.exists("/proc/cpuinfo") else platform.processor()
    def version(o):
        try: return m.version(o)
        except m.PackageNotFoundError: return None
    import av
    return dict(cpu=cpu, cores=len(os.sched_getaffinity(0)), python=platform.python_version(), system=platform.platform(), load_at_start=os.getloadavg()[0],
        versions={o: version(o) for o in ("popnb", "av", "decord", "torchcodec", "torch", "numpy")}, ffmpeg_in_av={k: ".".join(map(str, v)) for k,v in av.library_versions.items()})

def summary(cells, kind):
    "The figures that have a target"
    best = {k: c[kind]["best single"]["value"] for k,c in cells.items()}
    over = {k: c[kind]["decord get_batch"]["value"] for k,c in cells.items() if "decord get_batch" in c[kind]}
    key = {k: c[kind]["keyframe over decord get_batch"]["value"] for k,c in cells.items() if "keyframe over decord get_batch" in c[kind]}
    return {"worst cell over best single (>= 0.95)": min(best.values(), default=float("nan")), "geometric mean over best single": geo(best.values()), "geometric mean over decord get_batch (>= 1.1)": geo(over.values()),
        "keyframe, geometric mean over decord get_batch (>= 2.5)": geo(key.values()), "keyframe at GOP 250 (>= 5)": geo([v for k,v in key.items() if k.endswith("250")])}

def table(res, kind):
    names = [o for o in METHODS if any(o in c["ms"] for c in res["cells"].values())]
    rows = ["| ms, "+kind+" | "+" | ".join(names)+" | best single / popnb | key frame: s off |", "|---"*(len(names)+3)+"|"]
    for k,c in res["cells"].items():
        b = c[kind]["best single"]
        rows.append(f"| {k} | "+" | ".join(f"{c['ms'][o][kind]:.0f}" if o in c["ms"] else "-" for o in names)+f" | {b['value']:.2f} ({b['low']:.2f}-{b['high']:.2f}) {b['name']} | {c['keyframe_seconds_off']['mean']:.2f} |")
    return "\n".join(rows)

def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--out", type=Path, help="JSON file")
    a.add_argument("--clips", type=Path, default=Path(tempfile.gettempdir())/"popnb_bench_clips", help="where the clips are kept between runs")
    a.add_argument("--reps", type=int, default=7)
    a.add_argument("--slow-reps", type=int, default=2, help="turns of the methods that read everything")
    a.add_argument("--quick", action="store_true", help="360p H.264 alone")
    a.add_argument("--cells", nargs="*", help="such as h264-720p-30")
    a.add_argument("--no-memory", action="store_true")
    o = a.parse_args()
    o.clips.mkdir(parents=True, exist_ok=True)
    res = dict(machine=machine(), reps=o.reps, cells={}, memory={})
    if res["machine"]["load_at_start"] > .3: print(f"Mind: the load of this machine is {res['machine']['load_at_start']:.1f}; wall times are those of a busy machine.", file=sys.stderr)
    if not o.no_memory:
        for gop,name in itertools.product((30, 250), METHODS): res["memory"][f"{name}, 720p GOP {gop}"] = memory(make(o.clips, "h264", "720p", gop), name)
    for codec,size,gop in CELLS:
        name = f"{codec}-{size}-{gop}"
        if (o.quick and (codec, size) != ("h264", "360p")) or (o.cells and name not in o.cells): continue
        res["cells"][name] = cell(make(o.clips, codec, size, gop), o.reps, o.slow_reps)
        print(name, {m: f"{v['wall']:.0f}/{v['cpu']:.0f}" for m,v in res["cells"][name]["ms"].items()}, res["cells"][name]["left_out"], file=sys.stderr, flush=True)
    res["summary"] = {k: summary(res["cells"], k) for k in ("wall", "cpu")}
    if res["memory"]: res["summary"]["memory of a 720p clip, MB over imports (<= 150)"] = max(v["over"] for k,v in res["memory"].items() if k.startswith("popnb"))
    res["load_at_end"] = os.getloadavg()[0]
    for k in ("wall", "cpu"): print(f"## {k}", table(res, k), json.dumps(res["summary"][k], indent=1), sep="\n\n", end="\n\n")
    for k,v in res["memory"].items(): print(f"{k}: " + (v.get("error") or f"{v['over']:.0f} MB over {v['imports']:.0f} MB of imports"))
    if o.out: o.out.write_text(json.dumps(res, indent=1)+"\n")

if __name__ == "__main__": main()
