"""How fast are selected frames decoded, compared with other decoders?

    python bench/decode.py --out bench/results/decode.json            # all cells, about 20 minutes on 2 cores
    python bench/decode.py --quick                                    # 360p only, about a minute

Every method opens the file, decodes 8 frames (segment centres) and closes it. Methods alternate within one process
(ABAB), so that a busy machine slows all of them alike; figures are medians, ratios are of medians with a bootstrap
interval of 90 %. Processor time is reported beside wall time: it hardly depends on the machine's other work. Pixels are
compared before anything is timed. Memory is the peak of a new process beyond its peak after the imports.
"""
import argparse
import importlib.metadata
import itertools
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from timing import processor

SIZES = {"360p": (360, 640, 1.2e6), "720p": (720, 1280, 7.5e6), "1080p": (1080, 1920, 12e6)}
ENCODERS = {
    "h264": ("libx264", "mp4", {}),
    "hevc": ("libx265", "mp4", {"preset": "fast", "x265-params": "log-level=none"}),
    "vp9": ("libvpx-vp9", "webm", {"deadline": "realtime", "cpu-used": "6"}),
    "av1": ("libsvtav1", "mp4", {"preset": "10"})}
GOPS = (30, 250)
CELLS = [("h264", size, gop) for size in SIZES for gop in GOPS]
CELLS += [(codec, "360p", gop) for codec in ("hevc", "vp9", "av1") for gop in GOPS]
INDEXED = ("decord get_batch", "torchcodec 1 thread", "torchcodec 2 threads", "pyav seek")
READ_ALL = ("decord read all", "pyav read all")

# ---------------------------------------------------------------- clips

def smooth_noise(rng, h, w, grain):
    "Random texture `(h, w, 3)`, interpolated between points `grain` pixels apart"
    from PIL import Image
    small = rng.integers(0, 256, (h//grain+1, w//grain+1, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((w, h), Image.BICUBIC)).astype(np.int16)


def draw_frames(w, h, n, seed=0):
    "Yield `n` frames: a texture under a moving camera, a patch that moves across it, sensor noise"
    rng = np.random.default_rng(seed)
    background = smooth_noise(rng, h+512, w+512, 8)
    patch = smooth_noise(rng, h//4, w//3, 6)
    noise = [rng.normal(0, 6, (h, w, 1)).astype(np.int16) for _ in range(6)]
    for i in range(n):
        dx,dy = int(256+200*np.sin(i/60)),int(256+200*np.cos(i/80))
        f = background[dy:dy+h, dx:dx+w] + noise[i%6]
        y,x = int((h-h//4)*(.5+.45*np.sin(i/25))),int((w-w//3)*(.5+.45*np.cos(i/18)))
        f[y:y+h//4, x:x+w//3] = patch + noise[i%6][:h//4, :w//3]
        yield f.clip(0, 255).astype(np.uint8)


def make(folder, codec, size, gop, seconds=15, fps=30):
    "Encode the clip of a cell, unless the folder already has it, and return its path"
    import av
    w,h,rate = SIZES[size]
    encoder,ext,options = ENCODERS[codec]
    path = folder/f"{codec}_{size}_{gop}_{seconds}s.{ext}"
    if path.exists(): return path
    if codec == "hevc":
        keyint = f":keyint={gop}:min-keyint={min(gop, 25)}"
        options = options | {"x265-params": options["x265-params"] + keyint}
    tmp = path.with_suffix(f".part.{ext}")
    with av.open(str(tmp), "w") as container:
        s = container.add_stream(encoder, rate=fps, options=options)
        s.width,s.height,s.pix_fmt = w,h,"yuv420p"
        s.bit_rate = int(rate*(1 if codec == "h264" else .6))
        s.gop_size = gop
        for pixels in draw_frames(w, h, seconds*fps):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            for p in s.encode(frame): container.mux(p)
        for p in s.encode(): container.mux(p)
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
    "The method for a number of threads"
    def read(path, idx):
        from torchcodec.decoders import VideoDecoder
        decoder = VideoDecoder(str(path), num_ffmpeg_threads=threads, seek_mode="exact")
        return decoder.get_frames_at([int(i) for i in idx]).data.numpy()
    return read


def _rgb(frame): return frame.to_ndarray(format="rgb24").transpose(2, 0, 1)


def pyav_seek(path, idx):
    "Seek before each frame and decode up to it, as careful users of PyAV do"
    import av
    with av.open(str(path)) as container:
        s = container.streams.video[0]
        s.thread_type = "AUTO"
        start,step = s.start_time or 0,1/(s.average_rate*s.time_base)
        out = []
        for i in idx:
            at = start + round(int(i)*step)
            container.seek(at, stream=s)
            out.append(_rgb(next(f for f in container.decode(s) if f.pts + .5*step > at)))
        return np.stack(out)


def pyav_all(path, idx):
    import av
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "AUTO"
        pixels = np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])
        return pixels[idx].transpose(0, 3, 1, 2)


METHODS = {
    "popnb": popnb_exact,
    "popnb keyframe": popnb_keyframe,
    "decord get_batch": decord_batch,
    "torchcodec 1 thread": torchcodec_at(1),
    "torchcodec 2 threads": torchcodec_at(2),
    "pyav seek": pyav_seek,
    "decord read all": decord_all,
    "pyav read all": pyav_all}

# ---------------------------------------------------------------- timing

def clock():
    "Wall and processor seconds of this process with its threads"
    r = resource.getrusage(resource.RUSAGE_SELF)
    return time.perf_counter(),r.ru_utime+r.ru_stime


def usable(path, idx):
    "Names of the methods that return the pixels of a full decode of this file, and the reason for each other method"
    want = METHODS["pyav read all"](path, idx)
    ok,excluded = [],{}
    for name,f in METHODS.items():
        try:
            pixels = f(path, idx)
            same = name == "popnb keyframe" or (pixels.shape == want.shape and np.array_equal(pixels, want))
            if same: ok.append(name)
            else: excluded[name] = "other pixels" if pixels.shape == want.shape else f"other shape {pixels.shape}"
        except Exception as e: excluded[name] = f"fails ({type(e).__name__})"
    return ok,excluded


def measure(path, idx, names, reps, slow_reps):
    "Wall and processor seconds of each method, in alternating rounds"
    times = {o: [] for o in names}
    for rep in range(reps):
        for name in names:
            if name in READ_ALL and rep >= slow_reps: continue
            a = clock()
            METHODS[name](path, idx)
            b = clock()
            times[name].append((b[0]-a[0], b[1]-a[1]))
    return times


def ratio(a, b, k, seed=0):
    "Median of `a` over median of `b` (k: 0 wall, 1 processor) with a bootstrap interval of 90 %"
    a,b = np.array(a)[:, k],np.array(b)[:, k]
    rng = np.random.default_rng(seed)
    r = [np.median(rng.choice(a, len(a)))/np.median(rng.choice(b, len(b))) for _ in range(1000)]
    return dict(value=float(np.median(a)/np.median(b)), low=float(np.quantile(r, .05)), high=float(np.quantile(r, .95)))


def geometric_mean(values):
    "Geometric mean; NaN of nothing"
    return float(np.exp(np.mean(np.log(list(values))))) if values else float("nan")

# ---------------------------------------------------------------- one cell

def file_facts(info):
    "What the JSON says about a clip"
    i = info
    return dict(codec=i.codec, width=i.width, height=i.height, frames=i.frames, fps=i.fps, keyframes=i.keyframes,
        mb=i.size_bytes/1e6, spare=float(i.index.disposable.mean()))


def milliseconds(times):
    "Medians and fastest of `(wall, processor)` seconds"
    wall,cpu = zip(*times)
    return dict(wall=1e3*statistics.median(wall), fastest=1e3*min(wall), cpu=1e3*statistics.median(cpu), n=len(times))


def cell(path, reps, slow_reps):
    "Measure every usable method on one clip"
    from popnb.media.video import frames
    from popnb.media.frame_sampling import segment_centres
    exact,keys = frames(path, 8, "segment_centres"),frames(path, 8, "keyframe")
    idx = segment_centres(exact.info.frames, 8)
    assert (exact.indices == idx).all()
    ok,excluded = usable(path, idx)
    times = measure(path, idx, ok, reps, slow_reps)
    delta = np.abs(keys.times - exact.times)
    distinct = int(len(set(keys.indices.tolist())))
    res = dict(file=file_facts(exact.info), ms={o: milliseconds(v) for o,v in times.items()}, left_out=excluded,
        keyframe_seconds_off=dict(mean=float(delta.mean()), max=float(delta.max()), distinct=distinct))
    for k,kind in enumerate(("wall", "cpu")):
        out = res[kind] = {o: ratio(times[o], times["popnb"], k) for o in ok if not o.startswith("popnb")}
        best = min((o for o in INDEXED if o in ok), key=lambda o: res["ms"][o][kind])
        out["best single"] = out[best] | dict(name=best)
        keyframe = times["popnb keyframe"]
        if "decord get_batch" in ok:
            out["keyframe over decord get_batch"] = ratio(times["decord get_batch"], keyframe, k)
        out["keyframe over exact"] = ratio(times["popnb"], keyframe, k)
    return res

# ---------------------------------------------------------------- memory

def peak():
    "Peak memory of this process in MB; `ru_maxrss` alone would inherit the peak of the parent process"
    try: return next(int(o.split()[1])/1024 for o in open("/proc/self/status") if o.startswith("VmHWM"))
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


def imports_of(name):
    "The import statement of a method"
    if "decord" in name: return "import decord"
    if "torchcodec" in name: return "from torchcodec.decoders import VideoDecoder"
    return "import av, popnb.media.video"


def memory(path, name):
    "Peak memory in MB of a new process that runs one method, and its peak after the imports"
    code = CHILD.format(here=str(Path(__file__).parent), imports=imports_of(name), name=name, path=str(path))
    r = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if r.returncode: return dict(error=r.stderr.strip().split("\n")[-1][:200])
    base,most = map(float, r.stdout.split())
    return dict(imports=base, peak=most, over=most-base)

# ---------------------------------------------------------------- report

def machine():
    "Processor, system, versions and load"
    import av
    def version(package):
        try: return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError: return None
    packages = ("popnb", "av", "decord", "torchcodec", "torch", "numpy")
    return dict(
        cpu=processor(), cores=len(os.sched_getaffinity(0)), python=platform.python_version(),
        system=platform.platform(), load_at_start=os.getloadavg()[0],
        versions={o: version(o) for o in packages},
        ffmpeg_in_av={k: ".".join(map(str, v)) for k,v in av.library_versions.items()})


def summary(cells, kind):
    "The figures that have a target"
    def values(name): return {k: c[kind][name]["value"] for k,c in cells.items() if name in c[kind]}
    best = values("best single").values()
    batch = values("decord get_batch").values()
    key = values("keyframe over decord get_batch")
    return {
        "worst cell over best single (>= 0.95)": min(best, default=float("nan")),
        "geometric mean over best single": geometric_mean(best),
        "geometric mean over decord get_batch (>= 1.1)": geometric_mean(batch),
        "keyframe, geometric mean over decord get_batch (>= 2.5)": geometric_mean(key.values()),
        "keyframe at GOP 250 (>= 5)": geometric_mean([v for k,v in key.items() if k.endswith("250")])}


def table(res, kind):
    "The cells as a Markdown table"
    names = [o for o in METHODS if any(o in c["ms"] for c in res["cells"].values())]
    heads = [f"ms, {kind}", *names, "best single / popnb", "key frame: s off"]
    rows = ["| "+" | ".join(heads)+" |", "|---"*len(heads)+"|"]
    for name,c in res["cells"].items():
        b = c[kind]["best single"]
        ms = [f"{c['ms'][o][kind]:.0f}" if o in c["ms"] else "-" for o in names]
        best = f"{b['value']:.2f} ({b['low']:.2f}-{b['high']:.2f}) {b['name']}"
        rows.append("| "+" | ".join([name, *ms, best, f"{c['keyframe_seconds_off']['mean']:.2f}"])+" |")
    return "\n".join(rows)


def arguments():
    "Options of the command line"
    clips = Path(tempfile.gettempdir())/"popnb_bench_clips"
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", type=Path, help="JSON file")
    p.add_argument("--clips", type=Path, default=clips, help="folder that keeps the clips between runs")
    p.add_argument("--reps", type=int, default=7, help="rounds")
    p.add_argument("--slow-reps", type=int, default=2, help="rounds of the methods that decode every frame")
    p.add_argument("--quick", action="store_true", help="only H.264 at 360p")
    p.add_argument("--cells", nargs="*", help="names of cells, such as h264-720p-30")
    p.add_argument("--no-memory", action="store_true", help="leave out the memory of a 720p clip")
    return p.parse_args()


def main():
    a = arguments()
    a.clips.mkdir(parents=True, exist_ok=True)
    res = dict(machine=machine(), reps=a.reps, cells={}, memory={})
    load = res["machine"]["load_at_start"]
    if load > .3:
        print(f"The load of this machine is {load:.1f}: wall times are those of a busy machine.", file=sys.stderr)
    if not a.no_memory:
        for gop,name in itertools.product(GOPS, METHODS):
            res["memory"][f"{name}, 720p GOP {gop}"] = memory(make(a.clips, "h264", "720p", gop), name)
    for codec,size,gop in CELLS:
        name = f"{codec}-{size}-{gop}"
        if a.quick and (codec, size) != ("h264", "360p"): continue
        if a.cells and name not in a.cells: continue
        c = res["cells"][name] = cell(make(a.clips, codec, size, gop), a.reps, a.slow_reps)
        short = {m: f"{v['wall']:.0f}/{v['cpu']:.0f}" for m,v in c["ms"].items()}
        print(name, short, c["left_out"], file=sys.stderr, flush=True)
    res["summary"] = {k: summary(res["cells"], k) for k in ("wall", "cpu")}
    if res["memory"]:
        most = max(v["over"] for k,v in res["memory"].items() if k.startswith("popnb"))
        res["summary"]["memory of a 720p clip, MB over imports (<= 150)"] = most
    res["load_at_end"] = os.getloadavg()[0]
    for k in ("wall", "cpu"):
        print(f"## {k}", table(res, k), json.dumps(res["summary"][k], indent=1), sep="\n\n", end="\n\n")
    for k,v in res["memory"].items():
        print(f"{k}: " + (v.get("error") or f"{v['over']:.0f} MB over {v['imports']:.0f} MB of imports"))
    if a.out: a.out.write_text(json.dumps(res, indent=1)+"\n")


if __name__ == "__main__": main()
