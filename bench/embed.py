"""How fast are thumbnails and titles embedded, compared with the network alone?

    python bench/embed.py [--quick] [--rounds 5] [--threads 2] [--out bench/results/embed.json]

1. Pipeline: JPEG thumbnails (480x360, letter-boxed) are read, cropped, resized, embedded in batches and stored, against
   the bare open_clip forward pass on prepared tensors in memory; same batch, same number format. The bare forward pass
   is timed a second time under another name: the difference of the two is the noise of the machine.
2. Second run: the same files, all in the store.
3. One by one: read, transform and embed a single picture at a time and store nothing, as the published study does.
4. bfloat16 against float32: speed and cosine similarity of the full-size network on this processor.
5. Titles through the full-size text encoder, against the bare forward pass.

Networks have their published sizes and random weights: neither speed nor rounding depends on the trained values, and
nothing is downloaded. Ways alternate within one process (A B A B ...), so that a busy machine slows all alike; ratios
are of medians, the interval (90 %) is from a bootstrap over rounds. Processor time is reported beside wall time: it
hardly depends on the machine's other work, and shows what the pipeline costs in addition to the network. --quick uses
only two pictures for ViT-L/14.
"""
import argparse
import logging
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

from timing import load, processor, versions
from popnb.core import write_json
from popnb.features.store import Store

os.environ.setdefault("POPNB_PROGRESS", "0")


def thumbnails(d, n):
    "Write `n` letter-boxed JPEG thumbnails of about 25 KB and return their paths"
    from PIL import Image
    rng = np.random.default_rng(0)
    paths = []
    for i in range(n):
        a = np.zeros((360, 480, 3), np.uint8)
        small = Image.fromarray(rng.integers(0, 256, (20, 12, 3), dtype=np.uint8))
        smooth = np.asarray(small.resize((202, 360), Image.BICUBIC))
        a[:, 139:341] = np.clip(smooth + rng.normal(0, 8, (360, 202, 1)), 0, 255)
        paths.append(d/f"{i:04d}.jpg")
        Image.fromarray(a).save(paths[-1], quality=85)
    return paths


def open_clip_resize(size):
    "open_clip's transforms for pictures of `size` pixels"
    import open_clip
    cfg = open_clip.transform.PreprocessCfg(size=size)
    return open_clip.transform.image_transform_v2(cfg, is_train=False)


def encoder(name, dtype="float32"):
    "popnb's encoder with a network of published size and random weights"
    import open_clip
    import torch
    from popnb.features.clip import ClipEncoder
    from popnb.features.pretrained import freeze
    logging.disable(logging.ERROR)
    warnings.simplefilter("ignore")
    e = ClipEncoder("tiny", device="cpu", dtype=dtype)
    e.load_networks()
    torch.manual_seed(0)
    net = open_clip.create_model(name, None, load_weights=False, force_quick_gelu=True)
    e._resize = open_clip_resize(net.visual.image_size[0]).transforms[:-2]
    e._model = freeze(net, dtype)
    e.image_dim = open_clip.get_model_config(name)["embed_dim"]
    e.weights = f"random {name}"
    return e


def rounds(ways, n):
    "Wall and processor seconds of each way, `n` times in alternating rounds, after one warm-up round"
    times = {name: [] for name in ways}
    for i in range(n + 1):
        for name,f in ways.items():
            start,work = time.perf_counter(),time.process_time()
            f()
            if i: times[name].append((time.perf_counter() - start, time.process_time() - work))
    return times


def compare(title, times, items, unit):
    "Print and return medians, and speeds relative to the first way with a bootstrap interval"
    rng = np.random.default_rng(0)
    first,first_cpu = np.array(next(iter(times.values()))).T
    print(f"\n{title}")
    out = {}
    for name,t in times.items():
        wall,cpu = np.array(t).T
        m = float(np.median(wall))
        speed,by_cpu = float(np.median(first)/m),float(np.median(first_cpu)/np.median(cpu))
        at = rng.integers(0, len(wall), (2000, len(wall)))
        low,high = np.quantile(np.median(first[at], 1)/np.median(wall[at], 1), (.05, .95))
        out[name] = dict(seconds=wall.tolist(), processor_s=cpu.tolist(), median_s=m, per_s=items/m,
            speed=speed, low=float(low), high=float(high), speed_by_processor_time=by_cpu)
        print(f"  {name:28}{items/m:12,.2f} {unit}/s   {speed:8.3f} of the first ({low:.3f} to {high:.3f}),"
              f" by processor time {by_cpu:.3f}")
    return out


def pipeline(name, d, files, batch, reps):
    "Bare forward pass, popnb's pipeline, and the published study's loop"
    import torch
    from PIL import Image
    e = encoder(name)
    ready = torch.stack([e.pixels(p) for p in files])
    transform = open_clip_resize(ready.shape[-1])
    turn = [0]
    def bare():
        with torch.inference_mode():
            out = [e.model.encode_image(ready[i:i+batch]) for i in range(0, len(files), batch)]
            return torch.cat(out).numpy()
    def stored():
        with Store(d/f"{name}-{turn[0]}") as s: return e.images(files, s, batch_size=batch).values
    def first_run():
        turn[0] += 1
        return stored()
    def one(path):
        picture = Image.open(path).convert("RGB").crop((139, 0, 341, 360))
        return e.model.encode_image(transform(picture)[None]).numpy()
    def single():
        with torch.no_grad(): return np.concatenate([one(p) for p in files])
    difference = float(np.abs(first_run() - bare()).max())
    assert difference < 1e-4, difference
    ways = {
        "bare forward": bare,
        "files to store": first_run,
        "second run, from the store": stored,
        "bare forward, repeated": bare,
        "one at a time, not stored": single}
    title = f"{name}, {len(files)} pictures, batches of {batch}"
    result = compare(title, rounds(ways, reps), len(files), "pictures")
    return result | dict(batch=batch, pictures=len(files), largest_difference=difference)


def formats(name, files, reps):
    "bfloat16 against float32: speed and smallest cosine similarity of the embeddings"
    import torch
    full,half = encoder(name),encoder(name, "bfloat16")
    x = torch.stack([full.pixels(p) for p in files])
    ids = full.tokens([f"short number {i}" for i in range(len(files))])
    def pictures(e, x):
        with torch.inference_mode(): return e.model.encode_image(x).float()
    def titles(e):
        with torch.inference_mode(): return e.model.encode_text(ids).float()
    def smallest(a, b): return torch.nn.functional.cosine_similarity(a, b).min().item()
    a,b = pictures(full, x),pictures(half, x.bfloat16())
    cosine = {
        "pictures": smallest(a, b),
        "titles": smallest(titles(full), titles(half)),
        "pictures_less_their_mean": smallest(a - a.mean(0), b - b.mean(0))}
    ways = {"float32": lambda: pictures(full, x), "bfloat16": lambda: pictures(half, x.bfloat16())}
    result = compare(f"{name}: number formats, {len(files)} pictures", rounds(ways, reps), len(files), "pictures")
    print(f"  smallest cosine: {', '.join(f'{k} {v:.5f}' for k,v in cosine.items())}")
    assert min(cosine["pictures"], cosine["titles"]) >= .999, cosine
    return result | dict(smallest_cosine=cosine)


def titles(name, n, batch, reps):
    "popnb's text pipeline against the bare forward pass on token ids"
    import torch
    e = encoder(name)
    texts = [f"title number {i} #shorts" for i in range(n)]
    ids = e.tokens(texts)
    def bare():
        with torch.inference_mode():
            return torch.cat([e.model.encode_text(ids[i:i+batch]) for i in range(0, n, batch)])
    ways = {"bare forward": bare, "texts to vectors": lambda: e.texts(texts, batch_size=batch)}
    return compare(f"{name}: {n} titles", rounds(ways, reps), n, "titles")


def stages(files):
    "Milliseconds of processor time per thumbnail in each step, one thread"
    from popnb.features.encoder import crop_picture
    from popnb.media.image import read_image
    e = encoder("ViT-B-32")
    pictures = [read_image(p) for p in files]
    cropped = [crop_picture(i) for i in pictures]
    def per_item(f, items):
        times = []
        for _ in range(5):
            start = time.process_time()
            for i in items: f(i)
            times.append((time.process_time() - start)/len(items)*1e3)
        return statistics.median(times)
    out = {
        "read": per_item(read_image, files),
        "find the content": per_item(crop_picture, pictures),
        "resize": per_item(e.resize_picture, cropped)}
    print("\nReading a thumbnail, milliseconds: " + ", ".join(f"{k} {v:.2f}" for k,v in out.items()))
    return out


def machine(load_at_start):
    "Processor, its bfloat16 instructions, threads and load"
    import torch
    from popnb.core import BF16_FLAGS, _processor_flags, has_bf16
    return dict(
        platform=platform.platform(), processor=processor(), cpus=os.cpu_count(), load_at_start=load_at_start,
        threads=torch.get_num_threads(), capability=torch.backends.cpu.get_cpu_capability(),
        bf16_instructions=sorted(_processor_flags() & BF16_FLAGS), bf16_in_hardware=has_bf16("cpu"))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--quick", action="store_true", help="fewer pictures and rounds, about a minute")
    p.add_argument("--rounds", type=int, default=5, help="repetitions of the pipeline")
    p.add_argument("--threads", type=int, help="threads of torch; default: one per core")
    p.add_argument("--out", type=Path, default=Path(__file__).parent/"results"/"embed.json", help="JSON file")
    a = p.parse_args()
    import torch
    if a.threads: torch.set_num_threads(a.threads)
    d,busy = Path(tempfile.mkdtemp()),load()
    if busy is not None and busy > .3:
        print(f"The machine is busy (load {busy:.1f}): trust the ratios, not the speeds.")
    try:
        packages = ("popnb", "torch", "torchvision", "open_clip_torch", "pillow", "numpy")
        result = dict(machine=machine(busy), versions=versions(packages), settings=dict(quick=a.quick, rounds=a.rounds))
        files = thumbnails(d, 64)
        time.sleep(2.1)   # hashes of files younger than two seconds are not cached
        result["stages_ms"] = stages(files)
        result["vit_b_32"] = pipeline("ViT-B-32", d, files[:16 if a.quick else 32], 8, 3 if a.quick else a.rounds)
        result["titles_b_32"] = titles("ViT-B-32", 16 if a.quick else 64, 16, 3)
        result["formats_b_32"] = formats("ViT-B-32", files[:4], 3)
        pictures,batch,reps = (2, 2, 1) if a.quick else (4, 4, a.rounds)
        result["vit_l_14"] = pipeline("ViT-L-14", d, files[:pictures], batch, reps)
        result["formats_l_14"] = formats("ViT-L-14", files[:2], 1)
    finally: shutil.rmtree(d)
    write_json(a.out, result)
    print(f"\n{a.out}")


if __name__ == "__main__": sys.exit(main())
