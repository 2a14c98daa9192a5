"""VideoLLaMA2: what a process takes against its plan

    python bench/videollama2.py --parts memory [--only NAME] [--more]

`popnb.models.videollama2.memory_plan` against the process, measured as in bench/vlm.py: each case in a process of its own, a network of
some 300 million weights with random numbers and of the published form (8 or 4 frames of 384 x 384, 4 s of sound), growth of
the resident memory (VmHWM, set back by /proc/self/clear_refs) beyond a process that has imported everything and has trained
a tiny network of the same form: while the network is made, in a training step as the engine makes it (autocast, backward,
clipping, AdamW, gradients set to nothing; two steps where the optimiser's state is large), and in a prediction.
`memory(only, done, keep)` is that part; this file is run by nobody but itself, a process a case.
"""
import json
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path

import torch

from vlm import settle, status, train_step
from popnb.models.adapters import sizes
from popnb.models.videollama2.beats import BeatsConfig
from popnb.models.vlm.memory_plan import plan_memory
from popnb.models.videollama2.network import VideoLlamaConfig, adapt_videollama2
from popnb.models.videollama2.checkpoints import videollama2

warnings.filterwarnings("ignore")

SHAPE = dict(vocab_size=32_000, hidden_size=1024, intermediate_size=4096, num_hidden_layers=12, num_attention_heads=16, num_key_value_heads=4, frames=4, depth=2, seconds=30.,
             vision=dict(hidden_size=640, intermediate_size=1728, num_hidden_layers=8, num_attention_heads=10, image_size=384, patch_size=14), beats=dict(embed_dim=256, encoder_layers=6, encoder_embed_dim=512, encoder_ffn_embed_dim=2048, encoder_attention_heads=8, encoder_layerdrop=0.))
CASES = {"full": dict(method="full"), "full, again": dict(method="full", recompute=True), "full, audio at rest, 2 clips": dict(method="full", frozen=["audio"], batch=2), "full, listens": dict(method="full", modalities="a", seconds=12.),
         "lora": dict(method="lora", base=4), "lora, bf16 weights, 2 clips": dict(method="lora", batch=2), "lora, bf16 weights, again": dict(method="lora", recompute=True), "lora, bf16 weights, looks": dict(method="lora", modalities="v", frames=8),
         "qlora": dict(method="qlora"), "qlora, again": dict(method="qlora", recompute=True), "qlora, 30 s of sound": dict(method="qlora", seconds=30.), "head": dict(method="head"),
         "predict": dict(method="full", train=False), "predict, bf16 weights, 4 clips": dict(method="lora", batch=4, train=False), "predict, qlora": dict(method="qlora", train=False)}


def config_of(shape): return VideoLlamaConfig(**shape | dict(beats=BeatsConfig(**shape["beats"])))


def made(shape, method, base, modalities, frozen, recompute):
    "A network with random numbers, adapted as the system does it"
    from popnb.models.videollama2.memory_plan import MemoryCase, clip_tokens
    from popnb.models.vlm.activation_memory import How
    config = config_of(shape)
    net = videollama2("tiny" if base == 4 else "paper", method=method, modalities=modalities, pretrained=False, shape=shape | dict(beats=config.beats), scale=(0, 1))
    idle = MemoryCase(config, clip_tokens(config), How(method), modalities=modalities, frozen=tuple(frozen)).idle
    adapt_videollama2(net, method, dict.fromkeys(idle), r=16)
    if recompute: net.gradient_checkpointing_enable()
    return net


def inputs(config, batch, frames, seconds, text, modalities):
    "Random bytes, noise and ids; of several clips each is a little shorter than the one before"
    g,n = torch.Generator().manual_seed(0),round(seconds*16000)
    ids = torch.randint(3, config.vocab_size, (batch, text+1), generator=g)
    ids[:, 9] = config.placeholder
    out = dict(input_ids=ids, attention_mask=torch.ones_like(ids))
    if "v" in modalities: out["pixels"] = torch.randint(0, 256, (batch, frames, 3, config.vision["image_size"], config.vision["image_size"]), dtype=torch.uint8, generator=g)
    if "a" in modalities: out |= dict(sound=.1*torch.randn(batch, n, generator=g), sound_length=torch.tensor([n-1600*i for i in range(batch)]))
    return out


def case(method, base=None, batch=1, recompute=False, train=True, modalities="av", frozen=(), frames=4, seconds=4., text=200):
    "One case, in this process: measured and planned, bytes"
    base = base or (4 if method == "full" else 2)
    tiny = VideoLlamaConfig.tiny().to_dict()
    def work(shape, steps, *clip):
        net,b = made(shape, method, base, modalities, frozen, recompute),inputs(config_of(shape), batch, *clip, modalities)
        loaded = status("VmHWM")
        weights = settle()
        start = time.process_time()
        if train:
            opt = torch.optim.AdamW([p for p in net.train().parameters() if p.requires_grad], lr=1e-5)
            for _ in range(steps): train_step(net, opt, b | {"target": torch.linspace(0, 1, batch)}, True)
        else:
            with torch.inference_mode(): net.eval()(**b)
        return net,loaded,weights,status("VmHWM"),time.process_time()-start
    work(tiny, 2, 2, .5, 20)
    before = settle()
    net,loaded,weights,peak,seconds_taken = work(SHAPE, 2 if train else 1, frames, seconds, text)
    p = plan_memory(config_of(SHAPE), frames=frames, text=text, batch=batch, method=method, recompute=recompute, base=base, r=16, device="cpu", seconds=seconds, modalities=modalities, frozen=tuple(frozen))
    at = {k: sum(o.values()) for k,o in p.moments.items()}
    busiest = max((k for k in at if k not in ("loading", "predicting")), key=at.get) if train else "predicting"
    want,got = {"loading": at["loading"], "weights": p.moments["step"]["weights"], "work": at[busiest]},{"loading": loaded-before, "weights": weights-before, "work": peak-before}
    size = sizes(net)
    return dict(parameters=size["parameters"], planned_parameters=p.parameters, trained=size["trained"], planned_trained=p.trained, tokens=p.tokens.total, batch=batch, at=busiest, moments=p.moments, seconds=seconds_taken,
                **{k: dict(measured=got[k], planned=want[k], planned_over_measured=want[k]/got[k]) for k in got})


def memory(only=None, done=None, keep=lambda name, part: None):
    "Each case in a process of its own, one after the other; what is done is kept after each"
    env,out = dict(os.environ, MALLOC_TRIM_THRESHOLD_="0", MALLOC_MMAP_THRESHOLD_="262144", MALLOC_ARENA_MAX="2", OMP_NUM_THREADS=str(torch.get_num_threads())),done or {}
    for name,c in CASES.items():
        if only and only not in name or name in out: continue
        got = subprocess.run([sys.executable, str(Path(__file__).resolve()), "--case", json.dumps(c)], capture_output=True, text=True, env=env)
        if got.returncode: raise SystemExit(got.stderr[-3000:])
        o = out[name] = json.loads(got.stdout.splitlines()[-1])
        w,g = o["work"],lambda b: f"{b/1e9:6.2f} GB"
        print(f"{name:32}{o['parameters']/1e6:6.0f} M  weights {g(o['weights']['measured'])} plan {g(o['weights']['planned'])}   peak {g(w['measured'])} plan {g(w['planned'])}  ratio {w['planned_over_measured']:.3f} ({o['at']})   loading {o['loading']['planned_over_measured']:.3f}   {o['seconds']:5.1f} s", flush=True)
        keep("memory", out)
    return out


if __name__ == "__main__":                       # a process that `memory` has started
    torch.set_num_threads(1)
    print(json.dumps(case(**json.loads(sys.argv[sys.argv.index("--case")+1]))))
