"""Full fine-tuning, head alone, LoRA, QLoRA: time, memory, score; and what the wrapper around a network costs

    python bench/adapt.py [--rounds 7] [--seeds 3] [--epochs 10] [--peak-tflops 989] [--out bench/results/adapt.json]

1. The wrapper. `FrameNet` on bytes against the bare backbone and head on a clip that is normalised already, the same
   weights, evaluation mode, float32: the small networks (8 videos of one clip) and both published ones at true size with
   random weights (one clip). The wrapper's time includes the conversion and the normalisation of the bytes. Rounds alternate.
2. Adapting, on the processor. A small TimeSformer (width 128, four layers, 8 frames of 64 x 64) is trained on 160 videos of a
   drifting square, whose label is the speed to the right. From there each method goes on to another question: how fast does
   the square move, in whichever direction? 64 videos to learn from, 64 for the choice of a learning rate out of three (on the first
   seed), 160 for the score, a few seeds of data and adapters. Then steps of 16 videos (forward, backward, AdamW) of all
   methods in turn; "again" means with activations computed twice, which changes no score. Memory is weights, the optimiser's
   state, and the most that torch's allocator held beyond them within a step (its own record, not the process's size).
3. Predicting with four bits on the processor: bitsandbytes repacks its weights in evaluation mode, which `to_nf4` does not
   let it do, because nothing can be trained through repacked weights.
4. Only where CUDA is: TimeSformer-base and R(2+1)D-18 at true size with random weights, a training step in bfloat16 by each method:
   frames a second, peak memory, share of the chip's peak (392 and 81 GFLOP forward a clip, three times that for a full
   step; where the weights are frozen the work is two times instead; `--peak-tflops` is the chip's dense bfloat16 peak).

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

SMALL = dict(name="timesformer", size=64, shape={"hidden_size": 128, "num_hidden_layers": 4, "intermediate_size": 256}, dropout=0.)
WAYS = ("full", "full, again", "head", "lora", "lora, again", "qlora", "qlora, again")
RATES = (5e-4, 2e-3, 8e-3)


def frames_of(net, n, clips=1, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, clips, net.rule["frames"], 3, net.rule["crop"], net.rule["crop"]), dtype=torch.uint8, generator=g)


def wrapper(n_rounds):
    out = {}
    for title,net,n,k in (("r2plus1d, small", frame_net("r2plus1d"), 8, n_rounds), ("timesformer, small", frame_net("timesformer"), 8, n_rounds), ("videomae, small", frame_net("videomae"), 8, n_rounds),
                          ("r2plus1d, true size", frame_net("r2plus1d", "paper", pretrained=False), 1, max(3, n_rounds//2)), ("timesformer, true size", frame_net("timesformer", "paper", 2, pretrained=False), 1, max(3, n_rounds//2))):
        x,net = frames_of(net, n),net.eval()
        ready = net.normalise(x)
        def bare():
            with torch.inference_mode(): return net.head(net.backbone(ready) if net.name == "r2plus1d" else net.features(ready))
        def whole():
            with torch.inference_mode(): return net(x)["prediction"]
        assert torch.allclose(bare(), whole(), atol=1e-5)
        out[title] = table(f"{title}, {n} clips", rounds({"bare network": bare, "FrameNet": whole}, k))
    return out


class Drift:
    "A square that drifts; the label is its speed to the right, or how fast it is"
    def __init__(self, n, seed, absolute=False, size=64, frames=8):
        rng = np.random.default_rng(seed)
        speed = rng.uniform(-1, 1, n).astype(np.float32)
        self.y = (2*np.abs(speed)-1 if absolute else speed).astype(np.float32)
        start,row,side = rng.uniform(0, size, n),rng.integers(0, size*3//4, n),size//4
        at = (start[:, None] + speed[:, None]*np.arange(frames)*size/16)[..., None]
        column,line = (np.arange(size)-at) % size < side,(np.arange(size)-row[:, None] >= 0) & (np.arange(size)-row[:, None] < side)
        self.x = torch.from_numpy(20 + 20*rng.random((n, 1, frames, 3, size, size)) + 180*(line[:, None, :, None] & column[:, :, None])[:, None, :, None]).to(torch.uint8)
    def __len__(self): return len(self.x)
    def __getitem__(self, i): return {"pixels": self.x[i], "target": self.y[i]}


def settings(epochs, lr): return dict(epochs=epochs, batch_size=16, lr=lr, schedule="cosine", warmup=.1, grad_clip=1., weight_decay=.01, precision="fp32", device="cpu", save_every=10**6)


def spearman(net, data):
    with torch.no_grad(): return float(spearmanr(torch.cat([net.eval()(b)["prediction"][:, 0] for b in data.x.split(32)]), data.y)[0])


def from_base(folder, way, seed=0):
    net = load_net(folder)
    del net.adapted
    if "again" in way: net.gradient_checkpointing_enable()
    return adapt(net, way.split(",")[0], seed=seed)


def train(folder, way, seed, lr, epochs):
    net = from_base(folder, way, seed)
    Engine(settings(epochs, lr)).fit(net, Drift(64, 1000+seed, True))
    return dict(seed=seed, lr=lr, valid=spearman(net, Drift(64, 2000+seed, True)), test=spearman(net, Drift(160, 3000+seed, True)))


def held(f):
    "Most bytes that torch's allocator held beyond what it held before, while `f` runs"
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as prof: f()
    now = most = 0
    for e in sorted((e for e in prof.profiler.kineto_results.events() if e.name() == "[memory]"), key=lambda e: e.start_ns()):
        now += e.nbytes()
        most = max(most, now)
    return most


def stepper(folder, way):
    net,data = from_base(folder, way).train(),Drift(16, 5, True)
    opt,y = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=1e-4),torch.from_numpy(data.y)
    def step():
        net(data.x, target=y)["loss"].backward()
        opt.step()
        opt.zero_grad(set_to_none=True)
    step()
    state = sum(t.numel()*t.element_size() for s in opt.state.values() for t in s.values())
    size = sizes(net)
    return step,dict(trained=size["trained"], weights_mb=size["bytes"]/1e6, optimiser_mb=state/1e6, step_mb=held(step)/1e6)


def methods(seeds, epochs, n_rounds, folder):
    net,start = frame_net(**SMALL),time.process_time()
    Engine(settings(20, 2e-3)).fit(net, Drift(160, 0))
    save_net(net, folder)
    fresh,other = spearman(net, Drift(160, 1)),spearman(net, Drift(160, 3000, True))
    print(f"\nthe base: {time.process_time()-start:.0f} s, Spearman {fresh:.3f} on new videos, {other:.3f} on the other question", flush=True)
    scores = {}
    for way in METHODS:
        tries = [train(folder, way, 0, lr, epochs) for lr in RATES]
        best = max(tries, key=lambda o: o["valid"])
        runs = [best, *(train(folder, way, s, best["lr"], epochs) for s in range(1, seeds))]
        scores[way] = dict(rate=best["lr"], spearman=statistics.mean(r["test"] for r in runs), tried=tries, runs=runs)
        print(f"{way:8} rate {best['lr']}: Spearman {scores[way]['spearman']:.3f}", [round(r["test"], 3) for r in runs], flush=True)
    steps,about = zip(*(stepper(folder, w) for w in WAYS))
    times = table("a step of 16 videos", rounds(dict(zip(WAYS, steps)), n_rounds))
    out = {w: about[i] | dict(peak_mb=sum(about[i][k] for k in ("weights_mb", "optimiser_mb", "step_mb"))) | times[w] for i,w in enumerate(WAYS)}
    for w,o in out.items(): print(f"  {w:14}{o['trained']:9,} trained, weights {o['weights_mb']:5.2f} MB, optimiser {o['optimiser_mb']:5.2f} MB, at most {o['step_mb']:6.1f} MB in a step", flush=True)
    return dict(base=dict(spearman=fresh, on_the_other_question=other), videos=dict(train=64, valid=64, test=160), epochs=epochs, scores=scores, steps=out)


def predicting(n_rounds):
    nets = {k: adapt(frame_net(**SMALL), m).eval() for k,m in (("full", "full"), ("lora", "lora"), ("qlora, popnb", "qlora"), ("qlora, repacked", "qlora"))}
    for m in nets["qlora, repacked"].modules():
        if is_4bit(getattr(m, "weight", None)): m.support_avx512bf16_for_cpu = True
    x = frames_of(nets["full"], 16)
    def run(net):
        with torch.no_grad(): net(x)
    return table("prediction of 16 clips", rounds({k: (lambda net=net: run(net)) for k,net in nets.items()}, n_rounds))


def on_gpu(peak_tflops, n_rounds):
    out,flop = {},{"timesformer": 392e9, "r2plus1d": 81e9}
    for name,batch in (("timesformer", 8), ("timesformer", 32), ("r2plus1d", 32)):
        for way in WAYS:
            method,again = way.split(",")[0],"again" in way
            if name == "r2plus1d" and method == "qlora": continue
            torch.cuda.empty_cache()
            net = adapt(frame_net(name, "paper", 1, pretrained=False, gradient_checkpointing=again), method).cuda().train()
            opt = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=1e-5)
            x,y = frames_of(net, batch).cuda(),torch.zeros(batch, device="cuda")
            def step():
                with torch.autocast("cuda", torch.bfloat16): loss = net(x, target=y)["loss"]
                loss.backward()
                opt.step()
                opt.zero_grad(set_to_none=True)
                torch.cuda.synchronize()
            step()
            torch.cuda.reset_peak_memory_stats()
            times = rounds({way: step}, n_rounds, time.perf_counter)[way]
            m,work = statistics.median(times),{"full": 3, "head": 1}.get(method, 2)+(1 if again and method != "head" else 0)
            o = out[f"{name}, batch {batch}, {way}"] = dict(seconds=times, median_s=m, frames_per_s=batch*net.rule["frames"]/m, peak_gb=torch.cuda.max_memory_allocated()/1e9, weights_mb=sizes(net)["bytes"]/1e6, trained=sizes(net)["trained"],
                share_of_peak=work*flop[name]*batch/m/(peak_tflops*1e12))
            print(f"{name:12} batch {batch:3} {way:14} {1e3*m:9.1f} ms {o['frames_per_s']:9.0f} frames/s {o['peak_gb']:7.2f} GB {100*o['share_of_peak']:6.1f} % of the peak", flush=True)
            del net,opt
    return dict(device=torch.cuda.get_device_name(), peak_tflops=peak_tflops, steps=out)


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rounds", type=int, default=7, help="repetitions of parts 1, 3 and 4")
    p.add_argument("--seeds", type=int, default=3, help="of part 2")
    p.add_argument("--epochs", type=int, default=10, help="of part 2")
    p.add_argument("--peak-tflops", type=float, default=989., help="dense bfloat16 peak of the GPU; 989 is an H100's and H200's")
    p.add_argument("--parts", default="wrapper,methods,predicting,gpu", help="which of them")
    p.add_argument("--out", default="bench/results/adapt.json", help="where the JSON goes")
    a = p.parse_args()
    torch.set_num_threads(1)
    result = dict(about=dict(python=platform.python_version(), machine=platform.machine(), threads=1, **{k: version(k) for k in ("torch", "torchvision", "transformers", "peft", "bitsandbytes")}))
    if "wrapper" in a.parts: result["wrapper"] = wrapper(a.rounds)
    if "methods" in a.parts:
        with tempfile.TemporaryDirectory() as d: result["methods"] = methods(a.seeds, a.epochs, a.rounds, Path(d)/"base")
    if "predicting" in a.parts: result["predicting"] = predicting(a.rounds)
    if "gpu" in a.parts and torch.cuda.is_available(): result["gpu"] = on_gpu(a.peak_tflops, a.rounds)
    write_json(a.out, result)
