"""VideoLLaMA2: planned against measured memory of a process

    python bench/videollama2.py --parts memory [--only NAME] [--more]

`popnb.models.videollama2.memory_plan` against the process, measured as in bench/vlm.py: each case in a process of its
own, a network of some 300 million random weights in the published form (8 or 4 frames of 384 x 384, 4 s of audio),
growth of the resident memory (VmHWM, set back by /proc/self/clear_refs) beyond a process that has imported everything
and has trained a tiny network of the same form: while the network is built, in a training step as the engine makes it
(autocast, backward, clipping, AdamW, gradients set to None; two steps where the optimiser's state is large), and in a
prediction. `memory(only, done, write)` is that part; it runs this file in a process for each case.
"""
import json
import sys
import time
import warnings
from pathlib import Path

import torch

from process_memory import compare, process_bytes, reset_peak, run_cases, train_step
from popnb.models.adapters import sizes
from popnb.models.videollama2.beats import BeatsConfig
from popnb.models.videollama2.checkpoints import videollama2
from popnb.models.videollama2.network import VideoLlamaConfig, adapt_videollama2
from popnb.models.vlm.memory_plan import plan_memory

warnings.filterwarnings("ignore")

VISION = dict(hidden_size=640, intermediate_size=1728, num_hidden_layers=8, num_attention_heads=10, image_size=384,
    patch_size=14)
BEATS = dict(embed_dim=256, encoder_layers=6, encoder_embed_dim=512, encoder_ffn_embed_dim=2048,
    encoder_attention_heads=8, encoder_layerdrop=0.)
SHAPE = dict(vocab_size=32_000, hidden_size=1024, intermediate_size=4096, num_hidden_layers=12, num_attention_heads=16,
    num_key_value_heads=4, frames=4, depth=2, seconds=30., vision=VISION, beats=BEATS)
CASES = {
    "full": dict(method="full"),
    "full, recompute": dict(method="full", recompute=True),
    "full, frozen audio encoder, 2 clips": dict(method="full", frozen=["audio"], batch=2),
    "full, audio only": dict(method="full", modalities="a", seconds=12.),
    "lora": dict(method="lora", base=4),
    "lora, bf16 weights, 2 clips": dict(method="lora", batch=2),
    "lora, bf16 weights, recompute": dict(method="lora", recompute=True),
    "lora, bf16 weights, frames only": dict(method="lora", modalities="v", frames=8),
    "qlora": dict(method="qlora"),
    "qlora, recompute": dict(method="qlora", recompute=True),
    "qlora, 30 s of audio": dict(method="qlora", seconds=30.),
    "head": dict(method="head"),
    "predict": dict(method="full", train=False),
    "predict, bf16 weights, 4 clips": dict(method="lora", batch=4, train=False),
    "predict, qlora": dict(method="qlora", train=False)}


def make_config(shape):
    "Configuration of a shape"
    return VideoLlamaConfig(**shape | dict(beats=BeatsConfig(**shape["beats"])))


def make_network(shape, method, base, modalities, frozen, recompute):
    "A network with random weights, adapted as the system does it"
    from popnb.models.videollama2.memory_plan import MemoryCase, clip_tokens
    from popnb.models.vlm.activation_memory import TrainingSetup
    config = make_config(shape)
    net = videollama2("tiny" if base == 4 else "pretrained", method=method, modalities=modalities, pretrained=False,
        shape=shape | dict(beats=config.beats), scale=(0, 1))
    case = MemoryCase(config, clip_tokens(config), TrainingSetup(method), modalities=modalities, frozen=tuple(frozen))
    adapt_videollama2(net, method, dict.fromkeys(case.idle), r=16)
    if recompute: net.gradient_checkpointing_enable()
    return net


def inputs(config, batch, frames, seconds, text, modalities):
    "Random bytes, noise and ids; the audio of each further clip of a batch is a little shorter"
    g,n = torch.Generator().manual_seed(0),round(seconds*16000)
    ids = torch.randint(3, config.vocab_size, (batch, text+1), generator=g)
    ids[:, 9] = config.placeholder
    out = dict(input_ids=ids, attention_mask=torch.ones_like(ids))
    if "v" in modalities:
        side = config.vision["image_size"]
        out["pixels"] = torch.randint(0, 256, (batch, frames, 3, side, side), dtype=torch.uint8, generator=g)
    if "a" in modalities:
        out["sound"] = .1*torch.randn(batch, n, generator=g)
        out["sound_length"] = torch.tensor([n-1600*i for i in range(batch)])
    return out


def case(method, base=None, batch=1, recompute=False, train=True, modalities="av", frozen=(), frames=4, seconds=4.,
         text=200):
    "Measured and planned bytes of one case, in this process"
    base = base or (4 if method == "full" else 2)
    def work(shape, steps, *clip):
        net = make_network(shape, method, base, modalities, frozen, recompute)
        b = inputs(make_config(shape), batch, *clip, modalities)
        loaded = process_bytes("VmHWM")
        weights = reset_peak()
        start = time.process_time()
        if train:
            opt = torch.optim.AdamW([p for p in net.train().parameters() if p.requires_grad], lr=1e-5)
            for _ in range(steps): train_step(net, opt, b | {"target": torch.linspace(0, 1, batch)}, True)
        else:
            with torch.inference_mode(): net.eval()(**b)
        return net,loaded,weights,process_bytes("VmHWM"),time.process_time()-start
    work(VideoLlamaConfig.tiny().to_dict(), 2, 2, .5, 20)
    before = reset_peak()
    net,loaded,weights,peak,duration = work(SHAPE, 2 if train else 1, frames, seconds, text)
    p = plan_memory(make_config(SHAPE), frames=frames, text=text, batch=batch, method=method, recompute=recompute,
        base=base, r=16, device="cpu", seconds=seconds, modalities=modalities, frozen=tuple(frozen))
    size = sizes(net)
    about = dict(parameters=size["parameters"], planned_parameters=p.parameters, trained=size["trained"],
        planned_trained=p.trained, tokens=p.tokens.total, batch=batch, seconds=duration)
    return about | compare(p, train, loaded-before, weights-before, peak-before)


def memory(only=None, done=None, write=lambda name, part: None):
    "Run the cases that are not in `done`, each in a new process, and store the results after each"
    return run_cases(str(Path(__file__).resolve()), CASES, only, done or {}, write)


if __name__ == "__main__":                       # a process that `memory` has started
    torch.set_num_threads(1)
    print(json.dumps(case(**json.loads(sys.argv[sys.argv.index("--case")+1]))))
