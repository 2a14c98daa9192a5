"""Vision-language networks: what they need against the plan, and what the ways to a score cost

    python bench/vlm.py [--parts memory,readouts,wrapper,cache,gpu] [--rounds 5] [--only NAME] [--out bench/results/vlm.json]

1. memory. `popnb.models.plan` against the process: each case in a process of its own, networks of at least 200 million
   weights with random numbers (the true configuration of SmolVLM2-256M; Qwen2.5-VL with 12 narrower layers in the text
   tower and 16 in the vision tower). What is measured is the growth of the resident memory (VmHWM of /proc/self/status,
   which is set back by /proc/self/clear_refs) beyond a process that has imported everything and has trained a tiny
   network of the same family: while the network is loaded, in two training steps as the engine makes them (autocast,
   backward, clipping, AdamW, gradients set to nothing), and in a prediction in a further process. malloc is told to hand
   memory back (MALLOC_TRIM_THRESHOLD_, MALLOC_MMAP_THRESHOLD_), so that the peak is that of the work.
2. readouts. A score from the last token, from level words, and written as a number, by the same backbone, weights and batch.
3. wrapper. `VlmNet` on bytes against the bare backbone and head on pixels that are normalised already.
4. cache. What the network is shown, from the store against decoded and processed anew.
5. gpu, only where CUDA is: the true sizes with random weights, QLoRA on SmolVLM2-500M and Qwen2.5-VL-7B, made layer by layer
   so that no more than one of them is ever in float32: peak of the allocator, clips a second in training and prediction,
   and the plan's error.

Parts 2 to 4: processor time of one thread, rounds that take turns; medians, ratios and every single time go into the JSON.
"""
import argparse
import gc
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import torch

from timing import rounds, table
from popnb.core import read_json, write_json
from popnb.models.adapt import adapt, sizes
from popnb.models.plan import plan
from popnb.models.shapes import Tokens, cell, count_tokens, find_config, shape_config
from popnb.models.vlm_net import vlm_net
from popnb.models.vlm_parts import model_source

warnings.filterwarnings("ignore")

CONFIGS = {"smolvlm2": lambda: find_config("smolvlm2 256m"), "qwen2.5-vl": lambda: shape_config("qwen2.5-vl", (1024, 12, 8, 2, 4096, 32_000), (640, 16, 10, 1728))}
VIDEO = {"smolvlm2": dict(frames=2, size=(640, 360)), "qwen2.5-vl": dict(frames=4, size=(640, 360))}
CASES = {f"{f}, {name}": dict(family=f, **c) for f in CONFIGS for name,c in {
    "full, bf16": dict(method="full"), "full, fp32": dict(method="full", half=False), "full, again": dict(method="full", again=True),
    "lora": dict(method="lora"), "lora, bf16 base": dict(method="lora", base=2), "lora, again": dict(method="lora", again=True), "lora, batch 2": dict(method="lora", batch=2),
    "qlora": dict(method="qlora"), "qlora, again": dict(method="qlora", again=True), "head": dict(method="head"), "predict": dict(method="full", train=False), "predict, qlora": dict(method="qlora", train=False)}.items()}


def inputs(config, tokens, batch, seed=0):
    "Random bytes and ids of the shape that the family wants; of two videos the second has 20 tokens less"
    v,kind,g = config.vision_config,config.model_type,torch.Generator().manual_seed(seed)
    h,w = tokens.size
    byte = lambda *s: torch.randint(0, 256, s, dtype=torch.uint8, generator=g)
    slot = config.image_token_id if kind == "smolvlm" else config.video_token_id
    ids = torch.randint(3, config.text_config.vocab_size-8, (batch, tokens.total), generator=g)
    ids[:, 1:1+tokens.visual] = slot
    mask = torch.ones_like(ids)
    mask[1:, -20:] = 0
    if kind == "smolvlm": return dict(input_ids=ids, attention_mask=mask, pixel_values=byte(batch, tokens.frames, 3, h, w))
    grid = (tokens.patches//tokens.group, h//v.patch_size, w//v.patch_size)
    return dict(input_ids=ids, attention_mask=mask, pixel_values_videos=byte(batch*tokens.patches, tokens.pixels//tokens.patches), video_grid_thw=torch.tensor([grid]*batch), mm_token_type_ids=2*(ids == slot).long())


def network(config, method, base=4, again=False, readout="head"):
    "The wrapper around random weights, adapted"
    from transformers import AutoModelForImageTextToText
    family = {"smolvlm": "smolvlm2", "qwen2_5_vl": "qwen2.5-vl"}[config.model_type]
    torch.manual_seed(0)
    net = vlm_net(model_source(family), readout, method=method, backbone=AutoModelForImageTextToText.from_config(config, dtype=torch.float32 if base == 4 else torch.bfloat16))
    adapt(net, method, r=8, alpha=16, dropout=0)
    if again: net.gradient_checkpointing_enable()
    return net


def train_step(net, opt, batch, half, device="cpu"):
    with torch.autocast(device, torch.bfloat16, enabled=half): loss = net(**batch)["loss"]
    loss.backward()
    torch.nn.utils.clip_grad_norm_([p for p in net.parameters() if p.requires_grad], 1.)
    opt.step()
    opt.zero_grad(set_to_none=True)


def status(name): return 1024*int(next(l.split()[1] for l in open("/proc/self/status") if l.startswith(name)))


def settle():
    "Hand back what is free; the peak counts from here"
    import ctypes
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return status("VmRSS")


def case(family, method, half=True, again=False, base=4, batch=1, train=True, text=200):
    "One case, in this process: measured and planned, bytes"
    tiny = shape_config(family, (64, 1, 4, 2, 128, 300), (64, 1, 4, 128, 32, 16) if family == "smolvlm2" else (64, 1, 4, 128), scale=2) if family == "smolvlm2" else shape_config(family, (64, 1, 4, 2, 128, 300), (64, 1, 4, 128))
    for_step = lambda net: torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=1e-5)
    def work(config, tokens, steps):
        net,b = network(config, method, base, again),inputs(config, tokens, batch)
        loaded = status("VmHWM")
        gc.collect()
        weights = settle()
        if train:
            net.train()
            opt = for_step(net)
            for _ in range(steps): train_step(net, opt, b | {"target": torch.linspace(0, 1, batch)}, half)
        else:
            with torch.no_grad(): net.eval()(**b)
        return net,loaded,weights,status("VmHWM")
    warm = count_tokens(tiny, 2, (64, 64), 30, 64*64)
    work(tiny, Tokens(**warm.__dict__ | {"around": 0}), 2)
    before = settle()
    config = CONFIGS[family]()
    tokens = count_tokens(config, **VIDEO[family], text=text)
    net,loaded,weights,peak = work(config, tokens, 2)
    p = plan(config, **VIDEO[family], text=text, batch=batch, method=method, again=again, half=half, base=base, memory=1000)
    size = sizes(net)
    at = {k: sum(o.values()) for k,o in p.moments.items()}
    want = {"loading": max(at.get("loading", 0), p.moments["step"]["weights"]), "weights": p.moments["step"]["weights"], "work": max(v for k,v in at.items() if k not in ("loading", "predicting")) if train else p.predicting}
    got = {"loading": loaded-before, "weights": weights-before, "work": peak-before}
    return dict(parameters=size["parameters"], trained=size["trained"], tokens=tokens.total, patches=tokens.patches, batch=batch, at=p.at if train else "predicting", moments=at,
                **{k: dict(measured=got[k], planned=want[k], planned_over_measured=want[k]/got[k]) for k in got})


def memory(only=None):
    "Each case in a process of its own, one after the other"
    env,out = dict(os.environ, MALLOC_TRIM_THRESHOLD_="0", MALLOC_MMAP_THRESHOLD_="262144", MALLOC_ARENA_MAX="2", OMP_NUM_THREADS=str(torch.get_num_threads())),{}
    for name,c in CASES.items():
        if only and only not in name: continue
        got = subprocess.run([sys.executable, __file__, "--case", json.dumps(c)], capture_output=True, text=True, env=env)
        if got.returncode: raise SystemExit(got.stderr[-3000:])
        o = out[name] = json.loads(got.stdout.splitlines()[-1])
        w,g = o["work"],lambda b: f"{b/1e9:6.2f} GB"
        print(f"{name:32}{o['parameters']/1e6:6.0f} M  weights {g(o['weights']['measured'])} plan {g(o['weights']['planned'])}   peak {g(w['measured'])} plan {g(w['planned'])}  ratio {w['planned_over_measured']:.3f} ({o['at']})   loading {o['loading']['planned_over_measured']:.3f}", flush=True)
    return out


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--parts", default="memory,readouts,wrapper,cache,gpu", help="which of them")
    p.add_argument("--rounds", type=int, default=5, help="repetitions of parts 2 to 4")
    p.add_argument("--only", help="cases of part 1 with this in their name")
    p.add_argument("--case", help=argparse.SUPPRESS)
    p.add_argument("--out", default="bench/results/vlm.json", help="where the JSON goes; parts that are not run stay in it")
    a = p.parse_args()
    torch.set_num_threads(1)
    if a.case: print(json.dumps(case(**json.loads(a.case)))); sys.exit()
    if "memory" in a.parts: memory(a.only)
