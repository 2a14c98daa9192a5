"""Vision-language networks: what they need against the plan, and what the ways to a score cost

    python bench/vlm.py [--parts memory,readouts,wrapper,cache,gpu] [--rounds 5] [--only NAME] [--more] [--out bench/results/vlm.json]

1. memory. `popnb.models.vlm.memory_plan` against the process: each case in a process of its own, networks of at least 200 million
   weights with random numbers (the true configuration of SmolVLM2-256M; Qwen2.5-VL with 12 narrower layers in the text
   tower and 16 in the vision tower). What is measured is the growth of the resident memory (VmHWM of /proc/self/status,
   which is set back by /proc/self/clear_refs) beyond a process that has imported everything and has trained a tiny
   network of the same family: while the network is loaded, in a training step as the engine makes it (autocast,
   backward, clipping, AdamW, gradients set to nothing; two steps where everything is trained, because the optimiser's state
   comes with the first), and in a prediction in a further process. malloc is told to hand
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
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import torch

from timing import keeper, rounds, table
from popnb.core import read_json
from popnb.models.adapters import adapt, sizes
from popnb.models.vlm.memory_plan import measure_rate, plan_memory
from popnb.models.vlm.architectures import Tokens, count_tokens, find_config, shape_config
from popnb.models.vlm.network import vlm_net
from popnb.models.vlm.checkpoints import model_source

warnings.filterwarnings("ignore")

CONFIGS = {"smolvlm2": lambda: find_config("smolvlm2 256m"), "qwen2.5-vl": lambda: shape_config("qwen2.5-vl", (1024, 12, 8, 2, 4096, 32_000), (640, 16, 10, 1728))}
VIDEO = {"smolvlm2": dict(frames=2, size=(640, 360)), "qwen2.5-vl": dict(frames=4, size=(640, 360))}
CASES = {f"{f}, {name}": dict(family=f, **c) for f in CONFIGS for name,c in {
    "full, bf16": dict(method="full"), "full, again": dict(method="full", recompute=True),
    "lora": dict(method="lora"), "lora, bf16 weights, 2 videos": dict(method="lora", base=2, batch=2),
    "qlora": dict(method="qlora"), "qlora, again": dict(method="qlora", recompute=True), "head": dict(method="head"), "predict": dict(method="full", train=False), "predict, qlora": dict(method="qlora", train=False)}.items()}


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


def network(config, method, base=4, recompute=False, readout="head"):
    "The wrapper around random weights, adapted"
    from transformers import AutoModelForImageTextToText
    family = {"smolvlm": "smolvlm2", "qwen2_5_vl": "qwen2.5-vl"}[config.model_type]
    torch.manual_seed(0)
    net = vlm_net(model_source(family), readout, method=method, backbone=AutoModelForImageTextToText.from_config(config, dtype=torch.float32 if base == 4 else torch.bfloat16))
    adapt(net, method, r=8, alpha=16, dropout=0)
    if recompute: net.gradient_checkpointing_enable()
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


def case(family, method, half=True, recompute=False, base=4, batch=1, train=True, text=200):
    "One case, in this process: measured and planned, bytes"
    tiny = shape_config(family, (64, 1, 4, 2, 128, 300), (64, 1, 4, 128, 32, 16) if family == "smolvlm2" else (64, 1, 4, 128), scale=2) if family == "smolvlm2" else shape_config(family, (64, 1, 4, 2, 128, 300), (64, 1, 4, 128))
    for_step = lambda net: torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=1e-5)
    def work(config, tokens, steps):
        net,b = network(config, method, base, recompute),inputs(config, tokens, batch)
        loaded = status("VmHWM")
        gc.collect()
        weights = settle()
        if train:
            net.train()
            opt = for_step(net)
            for _ in range(steps):
                start = time.process_time()
                train_step(net, opt, b | {"target": torch.linspace(0, 1, batch)}, half)
        else:
            start = time.process_time()
            with torch.no_grad(): net.eval()(**b)
        return net,loaded,weights,status("VmHWM"),time.process_time()-start
    warm = count_tokens(tiny, 2, (64, 64), 30, 64*64)
    work(tiny, Tokens(**warm.__dict__ | {"around": 0}), 2)
    before = settle()
    config = CONFIGS[family]()
    tokens = count_tokens(config, **VIDEO[family], text=text)
    net,loaded,weights,peak,seconds = work(config, tokens, 2 if method == "full" else 1)
    p = plan_memory(config, **VIDEO[family], text=text, batch=batch, method=method, recompute=recompute, half=half, base=base, device="cpu")
    size,rate = sizes(net),measure_rate("cpu", half and train, 1.)
    at = {k: sum(o.values()) for k,o in p.moments.items()}
    busiest = max((k for k in at if k not in ("loading", "predicting")), key=at.get) if train else "predicting"
    want = {"loading": at["loading"], "weights": p.moments["step"]["weights"], "work": at[busiest]}
    got = {"loading": loaded-before, "weights": weights-before, "work": peak-before}
    return dict(parameters=size["parameters"], trained=size["trained"], tokens=tokens.total, patches=tokens.patches, batch=batch, at=busiest, moments=p.moments, seconds=seconds, rate=rate, share_of_rate=batch*(p.step if train else p.forward)/seconds/rate,
                **{k: dict(measured=got[k], planned=want[k], planned_over_measured=want[k]/got[k]) for k in got})


def memory(only, done, keep):
    "Each case in a process of its own, one after the other; what is done is kept after each"
    env,out = dict(os.environ, MALLOC_TRIM_THRESHOLD_="0", MALLOC_MMAP_THRESHOLD_="262144", MALLOC_ARENA_MAX="2", OMP_NUM_THREADS=str(torch.get_num_threads())),done
    for name,c in CASES.items():
        if only and only not in name or name in out: continue
        got = subprocess.run([sys.executable, __file__, "--case", json.dumps(c)], capture_output=True, text=True, env=env)
        if got.returncode: raise SystemExit(got.stderr[-3000:])
        o = out[name] = json.loads(got.stdout.splitlines()[-1])
        w,g = o["work"],lambda b: f"{b/1e9:6.2f} GB"
        print(f"{name:32}{o['parameters']/1e6:6.0f} M  weights {g(o['weights']['measured'])} plan {g(o['weights']['planned'])}   peak {g(w['measured'])} plan {g(w['planned'])}  ratio {w['planned_over_measured']:.3f} ({o['at']})   loading {o['loading']['planned_over_measured']:.3f}   {o['seconds']:5.1f} s, {o['share_of_rate']:.2f} of the rate", flush=True)
        keep("memory", out)


# --- the ways to a score

def drawn(family, readout="head", side=64, **shape):
    "The wrapper around a tiny network with other sizes; its tokenizer is that of `tiny_processor`"
    from popnb.models.vlm.checkpoints import tiny_config
    from transformers import AutoModelForImageTextToText
    config = tiny_config(family, side=side, **shape)
    torch.manual_seed(0)
    return vlm_net(model_source(family), readout, backbone=AutoModelForImageTextToText.from_config(config)).eval(),config


def words(config, tokens, batch):
    "As `inputs`, with ids of ordinary text only"
    from popnb.models.vlm.prompt import plain_ids
    from popnb.models.vlm.checkpoints import load_processor
    family = {"smolvlm": "smolvlm2", "qwen2_5_vl": "qwen2.5-vl"}[config.model_type]
    b = inputs(config, tokens, batch)
    text = torch.tensor(plain_ids(load_processor(model_source(family)).tokenizer, "secret kitten at home "*tokens.total)[0][:tokens.total])
    slot = config.image_token_id if family == "smolvlm2" else config.video_token_id
    return b | {"input_ids": torch.where(b["input_ids"] == slot, slot, text)}


def writes(net, number="57.29"):
    "A network that writes this number: one with random weights would end anywhere"
    choose,ids = net.numbers.choose,{t: i for i,t in net.numbers.words.items()}
    def told(scores, texts, used):
        for row,text in zip(scores, texts): row[ids[number[min(len(text), len(number)-1)]]] = 1e4
        return choose(scores, texts, used)
    net.numbers.choose = told
    return net


def readouts(n_rounds):
    "Head, level words, a number of five characters under the constraint, and one of nineteen tokens, which is what the published labels look like as text"
    out = {}
    for name,side,frames,batch in (("94 tokens, 1 video", 64, 8, 1), ("94 tokens, 8 videos", 64, 8, 8), ("574 tokens, 1 video", 256, 8, 1)):
        shape = dict(hidden=256, layers=12, heads=8, kv_heads=4, vision=128, depth=4)
        nets = {k: drawn("smolvlm2", k, side, **shape)[0] for k in ("head", "logits", "token")}
        config = drawn("smolvlm2", "head", side, **shape)[1]
        t = count_tokens(config, frames, (side, side), 62)
        b = words(config, Tokens(**t.__dict__ | {"around": 0}), batch)
        calls,token = [],writes(nets["token"])
        token.body.register_forward_hook(lambda *a: calls.append(1))
        def run(net):
            with torch.no_grad(): return net(**b)
        def free():
            with torch.no_grad(): return token.backbone.generate(**{k: token._pixels(k, v, {}) if k == "pixel_values" else v for k,v in b.items()}, max_new_tokens=19, min_new_tokens=19, do_sample=False, pad_token_id=0)
        got = run(token)
        passes = len(calls)
        assert (got["prediction"] == torch.tensor(57.29)).all()
        ways = {k: (lambda net=net: run(net)) for k,net in nets.items()} | {"token, as published (19 tokens)": free}
        out[name] = dict(forward_passes_of_token=passes, fallbacks=float(got["fallback"].mean()), parameters=sizes(nets["head"])["parameters"], tokens=t.visual+t.text, ways=table(f"{name}, {passes} passes for a number", rounds(ways, n_rounds)))
    return out


def wrapper(n_rounds):
    "VlmNet on bytes against its parts on normalised pixels"
    out = {}
    for family,shape,size in (("smolvlm2", dict(hidden=256, layers=6, heads=8, kv_heads=4, vision=256, depth=4, side=128), (128, 128)), ("qwen2.5-vl", dict(hidden=256, layers=6, heads=8, kv_heads=4, vision=256, depth=4), (168, 112))):
        for readout in ("head", "mean"):
            net,config = drawn(family, readout, **shape)
            t = count_tokens(config, 8, size, 60, pixels=size[0]*size[1])
            b = words(config, Tokens(**t.__dict__ | {"around": 0}), 2)
            ready = {k: net._pixels(k, v, {}) if v.dtype == torch.uint8 else v for k,v in b.items()}
            last = b["attention_mask"].sum(1)-1
            def bare():
                with torch.no_grad():
                    seen,m = net.backbone(**ready, use_cache=False).last_hidden_state,b["attention_mask"].unsqueeze(-1)
                    return net.head(seen[torch.arange(2), last] if readout == "head" else (seen*m).sum(1)/m.sum(1))
            def whole():
                with torch.no_grad(): return net(**b)["prediction"]
            assert torch.allclose(bare(), whole(), atol=1e-4)
            out[f"{family}, {readout}"] = dict(tokens=t.visual+t.text, ways=table(f"{family}, {readout}, 2 videos of {t.visual+t.text} tokens", rounds({"bare network": bare, "VlmNet": whole}, n_rounds)))
    return out


def cached(n_rounds, n=2):
    "What a network is shown, from the store against anew; clips of 720 x 1280 with a key frame a second"
    import pandas as pd
    from popnb.simulation.clips import ClipSpec, write_clip
    from popnb.models.vlm.prompt import PROMPTS, Budget
    from popnb.models.vlm.inputs import FrameSelection, frame_input_set, encode_videos
    from popnb.models.vlm.checkpoints import load_processor
    out = {}
    with tempfile.TemporaryDirectory() as d:
        d = Path(d)
        for i in range(n): write_clip(ClipSpec(seed=i, frames=150, fps=30, size=(1280, 720)), d/f"{i}.mp4")
        rows = pd.DataFrame({"video_id": [str(i) for i in range(n)], "video_path": [str(d/f"{i}.mp4") for i in range(n)]})
        for family,pixels in (("smolvlm2", 64*64), ("qwen2.5-vl", 256*28*28)):
            source,budget,look = model_source(family),Budget(frames=8, pixels=pixels, least=784, title=24, description=24, total=4096),FrameSelection("endpoints", 8)
            start = time.perf_counter()
            frame_input_set(rows, source, PROMPTS[family], look, budget, d/family, workers=1)
            first,start = time.perf_counter()-start,time.perf_counter()
            kept = frame_input_set(rows, source, PROMPTS[family], look, budget, d/family, workers=1)
            second,p = time.perf_counter()-start,load_processor(source, budget)
            ways = {"anew": lambda: [encode_videos(f, p, PROMPTS[family], look, budget) for f in rows["video_path"]], "from the store": lambda: [kept.read(i) for i in range(n)]}
            fresh = encode_videos(rows["video_path"][0], p, PROMPTS[family], look, budget)[0]
            assert all((kept.read(0)["pixels"][k] == fresh[k]).all() for k in kept.read(0)["pixels"])
            out[family] = dict(videos=n, bytes_a_video=sum(v.nbytes for v in kept.read(0)["pixels"].values()), first_s=first, second_s=second, ways=table(f"{family}, {n} videos", rounds(ways, n_rounds)))
    return out


# --- true sizes, where there is a GPU

def on_gpu(n_rounds):
    "QLoRA at true size with random weights: memory, clips a second, and the plan's error"
    out = {}
    for model,batches in (("smolvlm2 500m", (1, 8)), ("qwen2.5-vl 7b", (1, 2))):
        from transformers import AutoModelForImageTextToText
        config,family = find_config(model),model.split()[0]
        with torch.device("cuda"): backbone = AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16)
        net = vlm_net(model_source(family), method="qlora", backbone=backbone).cuda()
        del backbone
        adapt(net, "qlora", r=8, alpha=16, dropout=0)
        net.gradient_checkpointing_enable()
        opt = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=1e-5)
        tokens = count_tokens(config)
        for batch in batches:
            b = {k: v.cuda() for k,v in inputs(config, tokens, batch).items()}
            target,what = torch.linspace(0, 1, batch, device="cuda"),dict(batch=batch, method="qlora", recompute=True, memory=1000)
            def train():
                train_step(net.train(), opt, b | {"target": target}, True, "cuda")
                torch.cuda.synchronize()
            def predict():
                with torch.no_grad(): net.eval()(**b)
                torch.cuda.synchronize()
            p = plan_memory(model, **what)
            for name,f,planned in (("training", train, p.total), ("prediction", predict, p.predicting)):
                f()
                gc.collect()
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
                t = table(f"{model}, batch {batch}, {name}", rounds({name: f}, n_rounds, time.perf_counter))[name]
                peak = torch.cuda.max_memory_allocated()
                out[f"{model}, batch {batch}, {name}"] = t | dict(clips_per_s=batch/t["median_s"], peak_gb=peak/1e9, planned_gb=planned/1e9, planned_over_measured=planned/peak, weights_gb=sizes(net)["bytes"]/1e9, tflops=batch*(p.step if name == "training" else p.forward)/t["median_s"]/1e12)
                print(f"  {batch/t['median_s']:8.2f} clips/s   peak {peak/1e9:6.2f} GB   plan {planned/1e9:6.2f} GB   ratio {planned/peak:.3f}", flush=True)
        net = opt = None
        gc.collect()
        torch.cuda.empty_cache()
    with torch.device("cuda"): backbone = AutoModelForImageTextToText.from_config(find_config("smolvlm2 500m"), dtype=torch.bfloat16)
    net,config = writes(vlm_net(model_source("smolvlm2"), "token", backbone=backbone).cuda().eval()),find_config("smolvlm2 500m")
    for batch in (1, 8):
        b = {k: v.cuda() for k,v in inputs(config, count_tokens(config), batch).items()}
        def once():
            with torch.no_grad(): net.see(**b)
            torch.cuda.synchronize()
        def written():
            with torch.no_grad(): net(**b)
            torch.cuda.synchronize()
        out[f"smolvlm2 500m, bfloat16, batch {batch}, read-outs"] = table(f"smolvlm2 500m in bfloat16, {batch} videos", rounds({"one pass, as a head needs": once, "token": written}, n_rounds, time.perf_counter))
    return dict(device=torch.cuda.get_device_name(), cases=out)


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--parts", default="memory,readouts,wrapper,cache,gpu", help="which of them")
    p.add_argument("--rounds", type=int, default=5, help="repetitions of parts 2 to 4")
    p.add_argument("--only", help="cases of part 1 with this in their name")
    p.add_argument("--more", action="store_true", help="only cases of part 1 that the JSON has not")
    p.add_argument("--case", help=argparse.SUPPRESS)
    p.add_argument("--out", default="bench/results/vlm.json", help="where the JSON goes; parts that are not run stay in it")
    a = p.parse_args()
    torch.set_num_threads(1)
    if a.case: print(json.dumps(case(**json.loads(a.case)))); sys.exit()
    keep = keeper(a.out, ("torch", "transformers", "peft", "bitsandbytes"))
    if "memory" in a.parts: memory(a.only, read_json(a.out).get("memory", {}) if a.more and Path(a.out).exists() else {}, keep)
    for name,f in (("readouts", readouts), ("wrapper", wrapper), ("cache", cached)):
        if name in a.parts: keep(name, f(a.rounds))
    if "gpu" in a.parts and torch.cuda.is_available(): keep("gpu", on_gpu(a.rounds))
