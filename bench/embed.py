"""How fast are thumbnails and titles embedded, against the network alone?

    python bench/embed.py [--quick] [--rounds 5] [--threads 2] [--out bench/results/embed.json]

1. Pipeline: JPEG thumbnails (480x360, letter-boxed) are read, cropped, resized, embedded in batches and stored, against
   the bare open_clip forward on tensors that lie in memory ready-made; same batch, same number format. The bare forward
   is timed a second time under another name: what those two differ by is the noise of the machine.
2. Second run: the same files, all in the store.
3. One by one: read, transform, embed a single picture at a time with nothing kept, as the published study does.
4. bfloat16 against float32: speed and cosine of the full-size network on this processor.
5. Titles through the full-size text tower, against the bare forward.

Networks have their published sizes and random weights: neither speed nor rounding depends on what was learnt, and nothing
is fetched. Ways take turns within one process (A B A B ...), so that a busy machine slows all alike; ratios are of medians,
the interval (90 %) is from a bootstrap over rounds. Processor time is reported beside time on the clock: it hardly depends
on what else the machine does, and says what the pipeline costs on top of the network. --quick leaves out ViT-L/14 except for two pictures a way.
"""
import argparse
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

from popnb.core import write_json
from popnb.features.store import Store

os.environ.setdefault("POPNB_PROGRESS", "0")


def thumbnails(d, n):
    "Letter-boxed JPEG thumbnails, about 25 KB each"
    from PIL import Image
    rng,out = np.random.default_rng(0),[]
    for i in range(n):
        a = np.zeros((360, 480, 3), np.uint8)
        smooth = np.asarray(Image.fromarray(rng.integers(0, 256, (20, 12, 3), dtype=np.uint8)).resize((202, 360), Image.BICUBIC))
        a[:, 139:341] = np.clip(smooth + rng.normal(0, 8, (360, 202, 1)), 0, 255)
        out.append(d/f"{i:04d}.jpg")
        Image.fromarray(a).save(out[-1], quality=85)
    return out


def encoder(name, dtype="float32"):
    "Our encoder around a network of published size with random weights"
    import logging, warnings
    import open_clip, torch
    from popnb.features.clip import ClipEncoder
    from popnb.features.pretrained import freeze
    logging.disable(logging.ERROR)
    warnings.simplefilter("ignore")
    e = ClipEncoder("tiny", device="cpu", dtype=dtype)
    e.load_networks()
    torch.manual_seed(0)
    net = open_clip.create_model(name, None, load_weights=False, force_quick_gelu=True)
    size = net.visual.image_size[0]
    e._resize = open_clip.transform.image_transform_v2(open_clip.transform.PreprocessCfg(size=size), is_train=False).transforms[:-2]
    e._model,e.image_dim,e.weights = freeze(net, dtype),open_clip.get_model_config(name)["embed_dim"],f"random {name}"
    return e


def rounds(ways, n):
    "Seconds on the clock and of the processor of each way, `n` times, taking turns, after one turn that does not count"
    times = {name: [] for name in ways}
    for i in range(n + 1):
        for name,f in ways.items():
            start,work = time.perf_counter(),time.process_time()
            f()
            if i: times[name].append((time.perf_counter() - start, time.process_time() - work))
    return times


def compare(title, times, items, unit):
    "Medians, and speed in shares of the first way with an interval, printed and returned"
    rng,(first,work) = np.random.default_rng(0),np.array(next(iter(times.values()))).T
    print(f"\n{title}")
    out = {}
    for name,t in times.items():
        t,cpu = np.array(t).T
        m,share = float(np.median(t)),float(np.median(work)/np.median(cpu))
        pick = rng.integers(0, len(t), (2000, len(t)))
        low,high = np.quantile(np.median(first[pick], 1)/np.median(t[pick], 1), (.05, .95))
        ratio = float(np.median(first)/m)
        out[name] = dict(seconds=t.tolist(), processor_s=cpu.tolist(), median_s=m, per_s=items/m, speed=ratio, low=float(low), high=float(high), speed_by_processor_time=share)
        print(f"  {name:28}{items/m:12,.2f} {unit}/s   {ratio:8.3f} of the first ({low:.3f} to {high:.3f}), by processor time {share:.3f}")
    return out


def pipeline(name, d, files, batch, reps):
    "Bare forward, our pipeline, and the study's way"
    import open_clip, torch
    from PIL import Image
    e = encoder(name)
    ready = torch.stack([e.pixels(p) for p in files])
    theirs = open_clip.transform.image_transform_v2(open_clip.transform.PreprocessCfg(size=ready.shape[-1]), is_train=False)
    turn = [0]
    def bare():
        with torch.inference_mode(): return torch.cat([e.model.encode_image(ready[i:i+batch]) for i in range(0, len(files), batch)]).numpy()
    def ours():
        turn[0] += 1
        with Store(d/f"{name}-{turn[0]}") as s: return e.images(files, s, batch_size=batch).values
    def again():
        with Store(d/f"{name}-{turn[0]}") as s: return e.images(files, s, batch_size=batch).values
    def single():
        with torch.no_grad(): return np.concatenate([e.model.encode_image(theirs(Image.open(p).convert("RGB").crop((139, 0, 341, 360)))[None]).numpy() for p in files])
    gap = float(np.abs(ours() - bare()).max())
    assert gap < 1e-4, gap
    result = compare(f"{name}, {len(files)} pictures, batches of {batch}", rounds({"bare forward": bare, "files to store": ours, "again, from the store": again, "bare forward, once more": bare, "one at a time, nothing kept": single}, reps), len(files), "pictures")
    return result | dict(batch=batch, pictures=len(files), largest_difference=gap)


def formats(name, files, reps):
    "bfloat16 against float32"
    import torch
    full,half = encoder(name),encoder(name, "bfloat16")
    x = torch.stack([full.pixels(p) for p in files])
    titles = [f"short number {i}" for i in range(len(files))]
    ids = full.tokens(titles)
    def run(e, x): 
        with torch.inference_mode(): return e.model.encode_image(x).float()
    def say(e):
        with torch.inference_mode(): return e.model.encode_text(ids).float()
    cosine = {k: torch.nn.functional.cosine_similarity(a, b).min().item() for k,a,b in (("pictures", run(full, x), run(half, x.bfloat16())), ("titles", say(full), say(half)))}
    centred = [o - o.mean(0) for o in (run(full, x), run(half, x.bfloat16()))]
    cosine["pictures_less_their_mean"] = torch.nn.functional.cosine_similarity(*centred).min().item()
    result = compare(f"{name}: number formats, {len(files)} pictures", rounds({"float32": lambda: run(full, x), "bfloat16": lambda: run(half, x.bfloat16())}, reps), len(files), "pictures")
    print(f"  smallest cosine: {', '.join(f'{k} {v:.5f}' for k,v in cosine.items())}")
    assert min(cosine["pictures"], cosine["titles"]) >= .999, cosine
    return result | dict(smallest_cosine=cosine)


def titles(name, n, batch, reps):
    import torch
    e = encoder(name)
    said = [f"title number {i} #shorts" for i in range(n)]
    ids = e.tokens(said)
    def bare():
        with torch.inference_mode(): return torch.cat([e.model.encode_text(ids[i:i+batch]) for i in range(0, n, batch)])
    return compare(f"{name}: {n} titles", rounds({"bare forward": bare, "texts to vectors": lambda: e.texts(said, batch_size=batch)}, reps), n, "titles")


def stages(files):
    "Milliseconds of processor time per thumbnail in each step, one thread"
    from PIL import Image
    from popnb.features.encoder import crop_picture
    from popnb.media.image import read_image
    e = encoder("ViT-B-32")
    imgs = [read_image(p) for p in files]
    cut = [crop_picture(i) for i in imgs]
    def per(f, items):
        best = []
        for _ in range(5):
            start = time.process_time()
            for i in items: f(i)
            best.append((time.process_time() - start)/len(items)*1e3)
        return statistics.median(best)
    out = {"read": per(read_image, files), "find the content": per(crop_picture, imgs), "resize": per(e.resize_picture, cut)}
    print("\nReading a thumbnail, milliseconds: " + ", ".join(f"{k} {v:.2f}" for k,v in out.items()))
    return out


def _processor():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(o.split(":", 1)[1].strip() for o in lines if o.startswith("model name"))
    except (OSError, StopIteration): return platform.processor()


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--quick", action="store_true", help="about a minute")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--threads", type=int, help="of torch; default: one a core")
    p.add_argument("--out", type=Path, default=Path(__file__).parent/"results"/"embed.json")
    a = p.parse_args()
    import torch
    if a.threads: torch.set_num_threads(a.threads)
    from popnb.core import BF16_FLAGS, _processor_flags, has_bf16
    d = Path(tempfile.mkdtemp())
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    if load is not None and load > .3: print(f"The machine is busy (load {load:.1f}): trust the ratios, not the speeds.")
    try:
        result = dict(
            machine=dict(platform=platform.platform(), processor=_processor(), cpus=os.cpu_count(), load_at_start=load, threads=torch.get_num_threads(),
                         capability=torch.backends.cpu.get_cpu_capability(), bf16_instructions=sorted(_processor_flags() & BF16_FLAGS), bf16_in_hardware=has_bf16("cpu")),
            versions=dict(python=platform.python_version(), **{o: version(o) for o in ("popnb", "torch", "torchvision", "open_clip_torch", "pillow", "numpy")}),
            settings=dict(quick=a.quick, rounds=a.rounds))
        files = thumbnails(d, 64)
        time.sleep(2.1)   # hashes of younger files are not remembered
        result["stages_ms"] = stages(files)
        result["vit_b_32"] = pipeline("ViT-B-32", d, files[:16 if a.quick else 32], 8, 3 if a.quick else a.rounds)
        result["titles_b_32"] = titles("ViT-B-32", 16 if a.quick else 64, 16, 3)
        result["formats_b_32"] = formats("ViT-B-32", files[:4], 3)
        result["vit_l_14"] = pipeline("ViT-L-14", d, files[:2 if a.quick else 4], 2 if a.quick else 4, 1 if a.quick else a.rounds)
        result["formats_l_14"] = formats("ViT-L-14", files[:2], 1)
    finally: shutil.rmtree(d)
    write_json(a.out, result)
    print(f"\n{a.out}")


if __name__ == "__main__": sys.exit(main())
