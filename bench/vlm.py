"""Vision-language networks: planned against measured memory, and the cost of the read-outs

    python bench/vlm.py [--parts memory,readouts,wrapper,cache,gpu] [--rounds 5] [--only NAME] [--more]
                        [--out bench/results/vlm.json]

1. memory. `popnb.models.vlm.memory_plan` against the process: each case in a process of its own, networks of at least
   200 million random weights (the true configuration of SmolVLM2-256M; Qwen2.5-VL with 12 narrower layers in the
   language model and 16 in the vision encoder). Measured is the growth of the resident memory (VmHWM of
   /proc/self/status, set back by /proc/self/clear_refs) beyond a process that has imported everything and has trained
   a tiny network of the same family: while the network is loaded, in a training step as the engine makes it (autocast,
   backward, clipping, AdamW, gradients set to None; two steps where everything is trained, because the first one
   allocates the optimiser's state), and in a prediction in a further process. malloc returns freed memory to the system
   (MALLOC_TRIM_THRESHOLD_, MALLOC_MMAP_THRESHOLD_), so that the peak is that of the work.
2. readouts. A score from the last token, from level words, and written as a number, by the same backbone, weights and
   batch.
3. wrapper. `VlmNet` on bytes against the bare backbone and head on normalised pixels.
4. cache. The inputs of the network read from the store, against decoding and processing the videos.
5. gpu, only with CUDA: the true sizes with random weights, QLoRA on SmolVLM2-500M and Qwen2.5-VL-7B, built layer by
   layer so that no more than one layer is in float32 at a time: peak of the allocator, clips per second in training and
   prediction, and the error of the plan.

Parts 2 to 4: processor time of one thread, alternating rounds; medians, ratios and every single time go into the JSON.
"""
import argparse
import gc
import json
import sys
import tempfile
import time
import warnings
from dataclasses import replace
from pathlib import Path

import torch

from process_memory import compare, process_bytes, reset_peak, run_cases, train_step
from timing import result_writer, rounds, table
from popnb.core import read_json
from popnb.models.adapters import adapt, sizes
from popnb.models.vlm.architectures import count_tokens, find_config
from popnb.models.vlm.checkpoints import model_source
from popnb.models.vlm.families import VLM_FAMILIES, shape_config
from popnb.models.vlm.memory_plan import measure_rate, plan_memory
from popnb.models.vlm.network import vlm_net

warnings.filterwarnings("ignore")

FAMILY = {"smolvlm": "smolvlm2", "qwen2_5_vl": "qwen2.5-vl"}     # model_type -> name of the family


def case_config(family):
    "Configuration of the measured network"
    if family == "smolvlm2": return find_config("smolvlm2 256m")
    return shape_config(family, (1024, 12, 8, 2, 4096, 32_000), (640, 16, 10, 1728))


def warmup_config(family):
    "Configuration of a tiny network of the family"
    shape = dict(side=32, patch=16, scale=2) if family == "smolvlm2" else {}
    return shape_config(family, (64, 1, 4, 2, 128, 300), (64, 1, 4, 128), **shape)


VIDEO = {"smolvlm2": dict(frames=2, size=(640, 360)), "qwen2.5-vl": dict(frames=4, size=(640, 360))}
METHOD_CASES = {
    "full, bf16": dict(method="full"),
    "full, recompute": dict(method="full", recompute=True),
    "lora": dict(method="lora"),
    "lora, bf16 weights, 2 videos": dict(method="lora", base=2, batch=2),
    "qlora": dict(method="qlora"),
    "qlora, recompute": dict(method="qlora", recompute=True),
    "head": dict(method="head"),
    "predict": dict(method="full", train=False),
    "predict, qlora": dict(method="qlora", train=False)}
CASES = {f"{family}, {k}": dict(family=family, **c) for family in VIDEO for k,c in METHOD_CASES.items()}


def placeholder_id(config):
    "Token id of a visual token"
    return config.image_token_id if config.model_type == "smolvlm" else config.video_token_id


def inputs(config, tokens, batch, seed=0):
    "Random bytes and ids in the shape of the family; in a batch of two the second text is 20 tokens shorter"
    g = torch.Generator().manual_seed(seed)
    def random_bytes(*shape): return torch.randint(0, 256, shape, dtype=torch.uint8, generator=g)
    h,w = tokens.size
    ids = torch.randint(3, config.text_config.vocab_size-8, (batch, tokens.total), generator=g)
    ids[:, 1:1+tokens.visual] = placeholder_id(config)
    mask = torch.ones_like(ids)
    mask[1:, -20:] = 0
    out = dict(input_ids=ids, attention_mask=mask)
    if config.model_type == "smolvlm": return out | dict(pixel_values=random_bytes(batch, tokens.frames, 3, h, w))
    patch = config.vision_config.patch_size
    grid = tokens.patches//tokens.group,h//patch,w//patch
    return out | dict(
        pixel_values_videos=random_bytes(batch*tokens.patches, tokens.pixels//tokens.patches),
        video_grid_thw=torch.tensor([grid]*batch),
        mm_token_type_ids=2*(ids == placeholder_id(config)).long())


def network(config, method, base=4, recompute=False, readout="head"):
    "A `VlmNet` with random weights, adapted for a fine-tuning method"
    from transformers import AutoModelForImageTextToText
    torch.manual_seed(0)
    dtype = torch.float32 if base == 4 else torch.bfloat16
    backbone = AutoModelForImageTextToText.from_config(config, dtype=dtype)
    net = vlm_net(model_source(FAMILY[config.model_type], "tiny"), readout, method=method, backbone=backbone)
    adapt(net, method, r=8, alpha=16, dropout=0)
    if recompute: net.gradient_checkpointing_enable()
    return net


# --- 1. memory

def case(family, method, half=True, recompute=False, base=4, batch=1, train=True, text=200):
    "Measured and planned bytes of one case, in this process"
    def work(config, tokens, steps):
        net,b = network(config, method, base, recompute),inputs(config, tokens, batch)
        loaded = process_bytes("VmHWM")
        weights = reset_peak()
        if train:
            net.train()
            opt = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=1e-5)
            for _ in range(steps):
                start = time.process_time()
                train_step(net, opt, b | {"target": torch.linspace(0, 1, batch)}, half)
        else:
            start = time.process_time()
            with torch.no_grad(): net.eval()(**b)
        return net,loaded,weights,process_bytes("VmHWM"),time.process_time()-start
    tiny = warmup_config(family)
    work(tiny, replace(count_tokens(tiny, 2, (64, 64), 30, 64*64), around=0), 2)
    before = reset_peak()
    config = case_config(family)
    tokens = count_tokens(config, **VIDEO[family], text=text)
    net,loaded,weights,peak,seconds = work(config, tokens, 2 if method == "full" else 1)
    p = plan_memory(config, **VIDEO[family], text=text, batch=batch, method=method, recompute=recompute, half=half,
        base=base, device="cpu")
    size,rate = sizes(net),measure_rate("cpu", half and train, 1.)
    share = batch*(p.step if train else p.forward)/seconds/rate
    about = dict(parameters=size["parameters"], trained=size["trained"], tokens=tokens.total, patches=tokens.patches,
        batch=batch, seconds=seconds, rate=rate, share_of_rate=share)
    return about | compare(p, train, loaded-before, weights-before, peak-before)


# --- 2. readouts

def random_net(family, readout="head", side=64, **shape):
    "A `VlmNet` with the tokenizer of `tiny_processor` and a backbone of other sizes; its configuration"
    from popnb.models.vlm.checkpoints import tiny_config
    from transformers import AutoModelForImageTextToText
    config = tiny_config(family, side=side, **shape)
    torch.manual_seed(0)
    backbone = AutoModelForImageTextToText.from_config(config)
    return vlm_net(model_source(family, "tiny"), readout, backbone=backbone).eval(),config


def text_inputs(config, tokens, batch):
    "As `inputs`, with ids of ordinary text only"
    from popnb.models.vlm.checkpoints import load_processor
    from popnb.models.vlm.prompt import plain_ids
    b = inputs(config, tokens, batch)
    tokenizer = load_processor(model_source(FAMILY[config.model_type], "tiny")).tokenizer
    text = torch.tensor(plain_ids(tokenizer, "secret kitten at home "*tokens.total)[0][:tokens.total])
    slot = placeholder_id(config)
    return b | {"input_ids": torch.where(b["input_ids"] == slot, slot, text)}


def always_write(net, number="57.29"):
    "Make the network write this number; with random weights the length of a number would be arbitrary"
    choose,ids = net.numbers.choose,{t: i for i,t in net.numbers.tokens.items()}
    def choose_digit(scores, texts, used):
        for row,text in zip(scores, texts): row[ids[number[min(len(text), len(number)-1)]]] = 1e4
        return choose(scores, texts, used)
    net.numbers.choose = choose_digit
    return net


def time_readouts(name, side, frames, batch, n_rounds):
    "Time the read-outs on one input size"
    shape = dict(hidden=256, layers=12, heads=8, kv_heads=4, vision=128, depth=4)
    nets = {k: random_net("smolvlm2", k, side, **shape)[0] for k in ("head", "logits", "token")}
    config = random_net("smolvlm2", "head", side, **shape)[1]
    t = count_tokens(config, frames, (side, side), 62)
    b = text_inputs(config, replace(t, around=0), batch)
    calls,token = [],always_write(nets["token"])
    token.body.register_forward_hook(lambda *a: calls.append(1))
    def run(net):
        with torch.no_grad(): return net(**b)
    def generate():
        ready = {k: token._normalise(k, v, {}) if k == "pixel_values" else v for k,v in b.items()}
        options = dict(max_new_tokens=19, min_new_tokens=19, do_sample=False, pad_token_id=0)
        with torch.no_grad(): return token.backbone.generate(**ready, **options)
    out = run(token)
    passes = len(calls)
    assert (out["prediction"] == torch.tensor(57.29)).all()
    ways = {k: (lambda net=net: run(net)) for k,net in nets.items()} | {"token, as published (19 tokens)": generate}
    times = table(f"{name}, {passes} passes for a number", rounds(ways, n_rounds))
    return dict(forward_passes_of_token=passes, fallbacks=float(out["fallback"].mean()),
        parameters=sizes(nets["head"])["parameters"], tokens=t.visual+t.text, ways=times)


def readouts(n_rounds):
    "Head, level words, a number of five tokens under the constraint, and one of nineteen tokens as in published labels"
    cases = {"94 tokens, 1 video": (64, 8, 1), "94 tokens, 8 videos": (64, 8, 8), "574 tokens, 1 video": (256, 8, 1)}
    return {name: time_readouts(name, *c, n_rounds) for name,c in cases.items()}


# --- 3. wrapper

def time_wrapper(family, readout, shape, size, n_rounds):
    "Time `VlmNet` on bytes and its backbone and head on normalised pixels"
    net,config = random_net(family, readout, **shape)
    t = count_tokens(config, 8, size, 60, pixels=size[0]*size[1])
    b = text_inputs(config, replace(t, around=0), 2)
    ready = {k: net._normalise(k, v, {}) if v.dtype == torch.uint8 else v for k,v in b.items()}
    mask = b["attention_mask"]
    last = mask.sum(1)-1
    def bare():
        with torch.no_grad():
            hidden,m = net.backbone(**ready, use_cache=False).last_hidden_state,mask.unsqueeze(-1)
            if readout == "head": return net.head(hidden[torch.arange(2), last])
            return net.head((hidden*m).sum(1)/m.sum(1))
    def whole():
        with torch.no_grad(): return net(**b)["prediction"]
    assert torch.allclose(bare(), whole(), atol=1e-4)
    n = t.visual+t.text
    times = rounds({"bare network": bare, "VlmNet": whole}, n_rounds)
    return dict(tokens=n, ways=table(f"{family}, {readout}, 2 videos of {n} tokens", times))


def wrapper(n_rounds):
    "`VlmNet` on bytes against its parts on normalised pixels"
    shape = dict(hidden=256, layers=6, heads=8, kv_heads=4, vision=256, depth=4)
    families = {"smolvlm2": (shape | dict(side=128), (128, 128)), "qwen2.5-vl": (shape, (168, 112))}
    return {f"{family}, {readout}": time_wrapper(family, readout, *c, n_rounds)
            for family,c in families.items() for readout in ("head", "mean")}


# --- 4. cache

def time_cache(family, pixels, rows, store, n_rounds):
    "Time the inputs of all videos from the store and computed from the files"
    from popnb.models.vlm.checkpoints import load_processor
    from popnb.models.vlm.inputs import FrameSelection, encode_videos, frame_input_set
    from popnb.models.vlm.prompt import Budget
    source,prompt,selection = model_source(family, "tiny"),VLM_FAMILIES[family].prompt,FrameSelection("endpoints", 8)
    budget = Budget(frames=8, pixels=pixels, least=784, title=24, description=24, total=4096)
    paths = rows["video_path"]
    def cache(): return frame_input_set(rows, source, prompt, selection, budget, store, workers=1)
    start = time.perf_counter()
    cache()
    first,start = time.perf_counter()-start,time.perf_counter()
    cached = cache()
    second = time.perf_counter()-start
    processor = load_processor(source, budget)
    def encode(path): return encode_videos(path, processor, prompt, selection, budget)
    stored,computed = cached.read(0)["pixels"],encode(paths[0])[0]
    assert all((v == computed[k]).all() for k,v in stored.items())
    ways = {
        "anew": lambda: [encode(p) for p in paths],
        "from the store": lambda: [cached.read(i) for i in range(len(paths))]}
    times = table(f"{family}, {len(paths)} videos", rounds(ways, n_rounds))
    return dict(videos=len(paths), bytes_a_video=sum(v.nbytes for v in stored.values()), first_s=first, second_s=second,
        ways=times)


def cached(n_rounds, n=2):
    "Inputs from the store against computed inputs; clips of 720 x 1280 with a key frame a second"
    import pandas as pd
    from popnb.simulation.clips import ClipSpec, write_clip
    with tempfile.TemporaryDirectory() as d:
        d = Path(d)
        clips = [write_clip(ClipSpec(seed=i, frames=150, fps=30, size=(1280, 720)), d/f"{i}.mp4") for i in range(n)]
        rows = pd.DataFrame({"video_id": [str(i) for i in range(n)], "video_path": [str(p) for p in clips]})
        pixels = {"smolvlm2": 64*64, "qwen2.5-vl": 256*28*28}
        return {family: time_cache(family, k, rows, d/family, n_rounds) for family,k in pixels.items()}


# --- 5. true sizes on a GPU

def free_gpu():
    "Free unused memory and reset the peak of the allocator"
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()


def synchronised(f):
    "`f` followed by a wait for the GPU"
    def run():
        f()
        torch.cuda.synchronize()
    return run


def gpu_network(model, readout="head", method="qlora"):
    "A network of true size with random weights in bfloat16 on the GPU, and its configuration"
    from transformers import AutoModelForImageTextToText
    config = find_config(model)
    with torch.device("cuda"): backbone = AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16)
    return vlm_net(model_source(model.split()[0], "tiny"), readout, method=method, backbone=backbone).cuda(),config


def gpu_case(title, f, batch, planned, ops, weights, n_rounds):
    "Time, peak memory and arithmetic of one pass on the GPU, and the error of the plan"
    f()
    free_gpu()
    t = table(title, rounds({title: f}, n_rounds, time.perf_counter))[title]
    peak,seconds = torch.cuda.max_memory_allocated(),t["median_s"]
    print(f"  {batch/seconds:8.2f} clips/s   peak {peak/1e9:6.2f} GB   plan {planned/1e9:6.2f} GB"
          f"   ratio {planned/peak:.3f}", flush=True)
    return t | dict(clips_per_s=batch/seconds, peak_gb=peak/1e9, planned_gb=planned/1e9,
        planned_over_measured=planned/peak, weights_gb=weights/1e9, tflops=batch*ops/seconds/1e12)


def qlora_cases(model, batches, n_rounds):
    "Training and prediction of one model with QLoRA"
    net,config = gpu_network(model)
    adapt(net, "qlora", r=8, alpha=16, dropout=0)
    net.gradient_checkpointing_enable()
    opt = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=1e-5)
    tokens,out = count_tokens(config),{}
    for batch in batches:
        b = {k: v.cuda() for k,v in inputs(config, tokens, batch).items()}
        target = torch.linspace(0, 1, batch, device="cuda")
        p = plan_memory(model, batch=batch, method="qlora", recompute=True, memory=1000)
        def train(): train_step(net.train(), opt, b | {"target": target}, True, "cuda")
        def predict():
            with torch.no_grad(): net.eval()(**b)
        passes = ("training", train, p.total, p.step),("prediction", predict, p.predicting, p.forward)
        for name,f,planned,ops in passes:
            title = f"{model}, batch {batch}, {name}"
            out[title] = gpu_case(title, synchronised(f), batch, planned, ops, sizes(net)["bytes"], n_rounds)
    return out


def gpu_readouts(model, n_rounds):
    "A single forward pass against writing a number"
    net,config = gpu_network(model, "token", None)
    always_write(net.eval())
    out = {}
    for batch in (1, 8):
        b = {k: v.cuda() for k,v in inputs(config, count_tokens(config), batch).items()}
        def encode():
            with torch.no_grad(): net.encode(**b)
        def write():
            with torch.no_grad(): net(**b)
        ways = {"one pass, as a head needs": synchronised(encode), "token": synchronised(write)}
        times = rounds(ways, n_rounds, time.perf_counter)
        out[f"{model}, bfloat16, batch {batch}, read-outs"] = table(f"{model} in bfloat16, {batch} videos", times)
    return out


def on_gpu(n_rounds):
    "Models of true size with random weights"
    out = {}
    for model,batches in (("smolvlm2 500m", (1, 8)), ("qwen2.5-vl 7b", (1, 2))):
        out |= qlora_cases(model, batches, n_rounds)
        free_gpu()
    return dict(device=torch.cuda.get_device_name(), cases=out | gpu_readouts("smolvlm2 500m", n_rounds))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--parts", default="memory,readouts,wrapper,cache,gpu", help="parts to run")
    p.add_argument("--rounds", type=int, default=5, help="repetitions of parts 2 to 5")
    p.add_argument("--only", help="cases of part 1 whose name contains this")
    p.add_argument("--more", action="store_true", help="only cases of part 1 that the JSON lacks")
    p.add_argument("--case", help=argparse.SUPPRESS)
    p.add_argument("--out", default="bench/results/vlm.json", help="JSON file; parts that are not run stay in it")
    a = p.parse_args()
    torch.set_num_threads(1)
    if a.case: return print(json.dumps(case(**json.loads(a.case))))
    write = result_writer(a.out, ("torch", "transformers", "peft", "bitsandbytes"))
    if "memory" in a.parts:
        done = read_json(a.out).get("memory", {}) if a.more and Path(a.out).exists() else {}
        run_cases(__file__, CASES, a.only, done, write)
    for name,f in (("readouts", readouts), ("wrapper", wrapper), ("cache", cached)):
        if name in a.parts: write(name, f(a.rounds))
    if "gpu" in a.parts and torch.cuda.is_available(): write("gpu", on_gpu(a.rounds))


if __name__ == "__main__": sys.exit(main())
