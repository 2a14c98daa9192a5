"""Full fine-tuning, head only, LoRA and QLoRA: time, memory and score; and the overhead of the network wrapper

    python bench/adapt.py [--rounds 7] [--seeds 3] [--epochs 10] [--peak-tflops 989] [--out bench/results/adapt.json]

1. The wrapper. `FrameNet` on bytes against the bare backbone and head on normalised clips, the same weights,
   evaluation mode, float32: the small networks (8 videos of one clip) and two published ones at full size with random
   weights (one clip). The wrapper's time includes the conversion and the normalisation of the bytes. Rounds
   alternate.
2. Fine-tuning on the CPU. A small TimeSformer (width 128, four layers, 8 frames of 64 x 64) is trained on 160 videos
   of a drifting square, whose label is the velocity to the right. Every method fine-tunes this network for a second
   task, the speed without its direction: 64 videos to train on, 64 to select one of three learning rates (on the
   first seed), 160 for the score, a few seeds of data and adapters. Then steps of 16 videos (forward, backward,
   AdamW) of all methods in alternating rounds; "recompute" means activation checkpointing, which changes no score.
   Memory is weights, the state of the optimiser, and the peak of torch's allocator beyond them within a step (its own
   record, not the process size).
3. Prediction with 4-bit weights on the CPU: bitsandbytes repacks its weights in evaluation mode; `to_nf4` disables
   that, because repacked weights cannot be trained through.
4. Only with CUDA: TimeSformer-base and R(2+1)D-18 at full size with random weights, a training step in bfloat16 by
   each method: frames per second, peak memory, share of the chip's peak. The work of a forward pass is 392 and 81
   GFLOP a clip, of a full step three times that, of a step with frozen weights two times; `--peak-tflops` is the
   chip's dense bfloat16 peak.

Processor times (process time) of one thread; medians, ratios and every single time go into the JSON.
"""
import argparse
import platform
import statistics
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr

from timing import rounds, table
from popnb.core import write_json
from popnb.models.adapters import METHODS, adapt, is_4bit, sizes
from popnb.models.video.networks import frame_net, load_net, save_net
from popnb.training.engine import Engine

SHAPE = {"hidden_size": 128, "num_hidden_layers": 4, "intermediate_size": 256}
SMALL = dict(name="timesformer", preset="tiny", size=64, shape=SHAPE, dropout=0.)
WAYS = ("full", "full, recompute", "head", "lora", "lora, recompute", "qlora", "qlora, recompute")
RATES = (5e-4, 2e-3, 8e-3)


def random_clips(net, n, clips=1, seed=0):
    "Random bytes `(n, clips, frames, 3, size, size)` of the shape that the network takes"
    shape = n,clips,net.rule["frames"],3,net.rule["crop"],net.rule["crop"]
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


# --- 1. the wrapper

def wrapped_networks(n_rounds):
    "`(title, network, clips, rounds)` of each comparison"
    few = max(3, n_rounds//2)
    full_size = dict(preset="pretrained", pretrained=False)
    return [
        ("r2plus1d, small", frame_net("r2plus1d", "tiny"), 8, n_rounds),
        ("timesformer, small", frame_net("timesformer", "tiny"), 8, n_rounds),
        ("videomae, small", frame_net("videomae", "tiny"), 8, n_rounds),
        ("r2plus1d, true size", frame_net("r2plus1d", **full_size), 1, few),
        ("timesformer, true size", frame_net("timesformer", outputs=2, **full_size), 1, few)]


def wrapper(n_rounds):
    "`FrameNet` on bytes against its backbone and head on normalised pixels"
    out = {}
    for title,net,n,k in wrapped_networks(n_rounds):
        x,net = random_clips(net, n),net.eval()
        ready = net.normalise(x)
        def bare():
            with torch.inference_mode():
                return net.head(net.backbone(ready) if net.name == "r2plus1d" else net.features(ready))
        def whole():
            with torch.inference_mode(): return net(x)["prediction"]
        assert torch.allclose(bare(), whole(), atol=1e-5)
        out[title] = table(f"{title}, {n} clips", rounds({"bare network": bare, "FrameNet": whole}, k))
    return out


# --- 2. fine-tuning on the CPU

class Drift:
    "Videos of a drifting square; the label is its velocity to the right, or its speed without direction"
    def __init__(self, n, seed, absolute=False, size=64, frames=8):
        rng = np.random.default_rng(seed)
        velocity = rng.uniform(-1, 1, n).astype(np.float32)
        self.y = (2*np.abs(velocity)-1 if absolute else velocity).astype(np.float32)
        start,row,side = rng.uniform(0, size, n),rng.integers(0, size*3//4, n),size//4
        at = (start[:, None] + velocity[:, None]*np.arange(frames)*size/16)[..., None]
        columns = (np.arange(size)-at) % size < side
        below = np.arange(size)-row[:, None]
        rows = (below >= 0) & (below < side)
        square = (rows[:, None, :, None] & columns[:, :, None])[:, None, :, None]
        noise = 20*rng.random((n, 1, frames, 3, size, size))
        self.x = torch.from_numpy(20 + noise + 180*square).to(torch.uint8)
    def __len__(self): return len(self.x)
    def __getitem__(self, i): return {"pixels": self.x[i], "target": self.y[i]}


def settings(epochs, lr):
    "Settings of the training engine"
    return dict(epochs=epochs, batch_size=16, lr=lr, schedule="cosine", warmup=.1, grad_clip=1., weight_decay=.01,
        precision="fp32", device="cpu", save_every=10**6)


def spearman(net, data):
    "Rank correlation of the network's predictions with the labels"
    with torch.no_grad():
        predictions = [net.eval()(b)["prediction"][:, 0] for b in data.x.split(32)]
        return float(spearmanr(torch.cat(predictions), data.y)[0])


def adapted(folder, way, seed=0):
    "The saved base network, adapted by one of `WAYS`"
    net = load_net(folder)
    del net.adapted
    if "recompute" in way: net.gradient_checkpointing_enable()
    return adapt(net, way.split(",")[0], seed=seed)


def train(folder, way, seed, lr, epochs):
    "Fine-tune for the second task; scores of the validation and the test videos"
    net = adapted(folder, way, seed)
    Engine(settings(epochs, lr)).fit(net, Drift(64, 1000+seed, True))
    valid,test = Drift(64, 2000+seed, True),Drift(160, 3000+seed, True)
    return dict(seed=seed, lr=lr, valid=spearman(net, valid), test=spearman(net, test))


def peak_allocation(f):
    "Largest number of bytes that torch's allocator holds during `f`, beyond those it holds before"
    cpu = torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[cpu], profile_memory=True) as prof: f()
    events = [e for e in prof.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = most = 0
    for e in sorted(events, key=lambda e: e.start_ns()):
        now += e.nbytes()
        most = max(most, now)
    return most


def trained_parameters(net): return [p for p in net.parameters() if p.requires_grad]


def make_step(folder, way):
    "A training step of one way, and its memory"
    net,data = adapted(folder, way).train(),Drift(16, 5, True)
    opt,y = torch.optim.AdamW(trained_parameters(net), lr=1e-4),torch.from_numpy(data.y)
    def step():
        net(data.x, target=y)["loss"].backward()
        opt.step()
        opt.zero_grad(set_to_none=True)
    step()
    state = sum(t.numel()*t.element_size() for s in opt.state.values() for t in s.values())
    size = sizes(net)
    return step,dict(trained=size["trained"], weights_mb=size["bytes"]/1e6, optimiser_mb=state/1e6,
        step_mb=peak_allocation(step)/1e6)


def train_base(folder):
    "Train and save the base network; its score on new videos and on the second task"
    net,start = frame_net(**SMALL),time.process_time()
    Engine(settings(20, 2e-3)).fit(net, Drift(160, 0))
    save_net(net, folder)
    score,second_task = spearman(net, Drift(160, 1)),spearman(net, Drift(160, 3000, True))
    print(f"\nthe base network: {time.process_time()-start:.0f} s, Spearman {score:.3f} on new videos,"
          f" {second_task:.3f} on the second task", flush=True)
    return dict(spearman=score, on_the_other_question=second_task)


def score_method(folder, way, seeds, epochs):
    "Select a learning rate on the first seed, then score the method on every seed"
    tries = [train(folder, way, 0, lr, epochs) for lr in RATES]
    best = max(tries, key=lambda o: o["valid"])
    runs = [best, *(train(folder, way, s, best["lr"], epochs) for s in range(1, seeds))]
    mean = statistics.mean(r["test"] for r in runs)
    print(f"{way:8} rate {best['lr']}: Spearman {mean:.3f}", [round(r["test"], 3) for r in runs], flush=True)
    return dict(rate=best["lr"], spearman=mean, tried=tries, runs=runs)


def methods(seeds, epochs, n_rounds, folder):
    "Scores of all methods, and time and memory of their training steps"
    base = train_base(folder)
    scores = {way: score_method(folder, way, seeds, epochs) for way in METHODS}
    steps,memory = zip(*(make_step(folder, w) for w in WAYS))
    times = table("a step of 16 videos", rounds(dict(zip(WAYS, steps)), n_rounds))
    out = {}
    for way,m in zip(WAYS, memory):
        out[way] = m | dict(peak_mb=m["weights_mb"]+m["optimiser_mb"]+m["step_mb"]) | times[way]
        print(f"  {way:18}{m['trained']:9,} trained, weights {m['weights_mb']:5.2f} MB,"
              f" optimiser {m['optimiser_mb']:5.2f} MB, at most {m['step_mb']:6.1f} MB in a step", flush=True)
    return dict(base=base, videos=dict(train=64, valid=64, test=160), epochs=epochs, scores=scores, steps=out)


# --- 3. prediction with 4-bit weights

def predicting(n_rounds):
    "Prediction of 16 clips, with and without bitsandbytes' repacking"
    adaptations = {"full": "full", "lora": "lora", "qlora, popnb": "qlora", "qlora, repacked": "qlora"}
    nets = {k: adapt(frame_net(**SMALL), m).eval() for k,m in adaptations.items()}
    for m in nets["qlora, repacked"].modules():
        if is_4bit(getattr(m, "weight", None)): m.support_avx512bf16_for_cpu = True
    x = random_clips(nets["full"], 16)
    def run(net):
        with torch.no_grad(): net(x)
    ways = {k: (lambda net=net: run(net)) for k,net in nets.items()}
    return table("prediction of 16 clips", rounds(ways, n_rounds))


# --- 4. full size on a GPU

def gpu_step(name, way, batch, peak_tflops, n_rounds):
    "Time, memory and arithmetic of a training step on the GPU"
    flop = {"timesformer": 392e9, "r2plus1d": 81e9}[name]
    method,recompute = way.split(",")[0],"recompute" in way
    net = frame_net(name, "pretrained", 1, pretrained=False, gradient_checkpointing=recompute)
    net = adapt(net, method).cuda().train()
    opt = torch.optim.AdamW(trained_parameters(net), lr=1e-5)
    x,y = random_clips(net, batch).cuda(),torch.zeros(batch, device="cuda")
    def step():
        with torch.autocast("cuda", torch.bfloat16): loss = net(x, target=y)["loss"]
        loss.backward()
        opt.step()
        opt.zero_grad(set_to_none=True)
        torch.cuda.synchronize()
    step()
    torch.cuda.reset_peak_memory_stats()
    times = rounds({way: step}, n_rounds, time.perf_counter)[way]
    m,size = statistics.median(times),sizes(net)
    work = {"full": 3, "head": 1}.get(method, 2) + (1 if recompute and method != "head" else 0)
    return dict(
        seconds=times, median_s=m, frames_per_s=batch*net.rule["frames"]/m,
        peak_gb=torch.cuda.max_memory_allocated()/1e9, weights_mb=size["bytes"]/1e6, trained=size["trained"],
        share_of_peak=work*flop*batch/m/(peak_tflops*1e12))


def on_gpu(peak_tflops, n_rounds):
    "Training steps of both published networks by each method"
    out = {}
    for name,batch in (("timesformer", 8), ("timesformer", 32), ("r2plus1d", 32)):
        for way in WAYS:
            if name == "r2plus1d" and way.startswith("qlora"): continue
            torch.cuda.empty_cache()
            o = out[f"{name}, batch {batch}, {way}"] = gpu_step(name, way, batch, peak_tflops, n_rounds)
            print(f"{name:12} batch {batch:3} {way:18} {1e3*o['median_s']:9.1f} ms {o['frames_per_s']:9.0f} frames/s"
                  f" {o['peak_gb']:7.2f} GB {100*o['share_of_peak']:6.1f} % of the peak", flush=True)
    return dict(device=torch.cuda.get_device_name(), peak_tflops=peak_tflops, steps=out)


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rounds", type=int, default=7, help="repetitions of each measurement")
    p.add_argument("--seeds", type=int, default=3, help="seeds of part 2")
    p.add_argument("--epochs", type=int, default=10, help="epochs of fine-tuning in part 2")
    p.add_argument("--peak-tflops", type=float, default=989.,
        help="dense bfloat16 peak of the GPU; 989 is an H100's and H200's")
    p.add_argument("--parts", default="wrapper,methods,predicting,gpu", help="parts to run")
    p.add_argument("--out", default="bench/results/adapt.json", help="JSON file")
    a = p.parse_args()
    torch.set_num_threads(1)
    packages = ("torch", "torchvision", "transformers", "peft", "bitsandbytes")
    about = dict(python=platform.python_version(), machine=platform.machine(), threads=1)
    result = dict(about=about | {k: version(k) for k in packages})
    if "wrapper" in a.parts: result["wrapper"] = wrapper(a.rounds)
    if "methods" in a.parts:
        with tempfile.TemporaryDirectory() as d:
            result["methods"] = methods(a.seeds, a.epochs, a.rounds, Path(d)/"base")
    if "predicting" in a.parts: result["predicting"] = predicting(a.rounds)
    if "gpu" in a.parts and torch.cuda.is_available(): result["gpu"] = on_gpu(a.peak_tflops, a.rounds)
    write_json(a.out, result)
