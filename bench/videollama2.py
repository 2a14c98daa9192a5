"""VideoLLaMA2: what kept towers save, what the filterbank and the wrapper cost, what memory it takes, and the true size on a GPU

    python bench/videollama2.py [--parts towers,filterbank,wrapper,memory,gpu] [--rounds 7] [--only NAME] [--more] [--out bench/results/videollama2.json]

1. towers. The second pass over clips against the first: frames and sound decoded and both frozen towers computed; frames and
   sound read from the store and the towers computed; what the towers said read from the store. Clips of 10 s in 720p; once
   with small towers and several rounds, once with both towers at their published size (random weights in bfloat16, one clip,
   two rounds). The arithmetic of the whole network at true size, part by part, says what that means for a training.
2. filterbank. Log-mel energies of one sound and of eight: popnb's in torch, kaldi-native-fbank, and a plain one in numpy.
3. wrapper. The network on bytes and samples against its bare parts (SigLIP's layers, connector, BEATs, projector, decoder,
   head) on pixels that are normalised already and on energies; with equal lengths, so that the bare parts need no padding.
4. memory. The plan against processes, see bench/videollama2_memory.py.
5. gpu, only where CUDA is: the true size with random weights, made layer by layer in bfloat16: prediction (from bytes and
   from kept towers), and training steps with LoRA and QLoRA as the recipe has them (rank 64, activations computed twice) at
   batch 1 and 4: clips a second, peak of the allocator, arithmetic done as a share of the chip's peak and of the rate of one
   large product measured beside it. Where there is none it says so; `--rehearse` runs the same code on a processor with a
   tiny network, to see that it runs.

Parts 1 to 3: processor time of one thread, rounds that take turns (A B A B); medians, ratios with an interval of 95 % (bootstrap
over rounds) and every single time go into the JSON.
"""
import argparse
import gc
import os
import platform
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch

from timing import keeper, rounds, table
from popnb.core import read_json
from popnb.models.videollama2.beats import BeatsConfig
from popnb.models.videollama2.network import SO400M, VideoLlama2, VideoLlamaConfig, adapt_videollama2, normalise_siglip
from popnb.models.videollama2.checkpoints import empty_videollama2

warnings.filterwarnings("ignore")


def against(title, times):
    "`table`, and the interval of each way's ratio to the first: rounds drawn again, both ways together"
    out,rng = table(title, times),np.random.default_rng(0)
    first = np.array(next(iter(times.values())))
    drawn = rng.integers(len(first), size=(10_000, len(first)))
    for k,t in times.items():
        if len(first) < 4: continue               # too few to be drawn from
        r = np.median(first[drawn], 1)/np.median(np.array(t)[drawn], 1)
        out[k]["first_over_this_95"] = np.quantile(r, [.025, .975]).tolist()
    return out


def drawn(config, device="cpu", dtype=torch.float32, **options):
    "A network with random weights that is never larger than it will be"
    from transformers.initialization import no_init_weights
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device), no_init_weights(): net = VideoLlama2(config, scale=(.5, .2), **options)
    finally: torch.set_default_dtype(torch.float32)
    torch.manual_seed(0)
    with torch.no_grad():
        for n,p in net.named_parameters(): p.normal_(std=.02) if p.ndim > 1 else p.fill_(float(n.endswith("weight")))
        for n,p in net.named_parameters():
            if n.endswith(("weight_g", "grep_a")): p.fill_(1.)
    return net.eval()


# --- kept towers

def arithmetic():
    "Operations of a forward pass of one clip at true size, by part; nothing is computed"
    from torch.utils.flop_counter import FlopCounterMode
    from popnb.models.videollama2.beats import n_tokens
    from popnb.models.videollama2.filterbank import n_frames
    net = empty_videollama2()
    m,out = net.model,{}
    def count(f):
        with FlopCounterMode(display=False) as c, torch.no_grad(): f()
        return c.get_total_flops()/1e12
    x = lambda *s: torch.empty(s, device="meta")
    for seconds,name in ((8, "8 s of sound"), (30, "30 s, as published")):
        frames = n_frames(seconds*16000)
        heard = n_tokens(frames)
        places = 676+heard+150
        out[name] = {"vision tower": count(lambda: m.vision_tower(x(8, 3, 384, 384))), "audio tower": count(lambda: m.audio_tower(x(1, frames, 128))),
                     "connector": count(lambda: m.mm_projector(x(1, 8, 729, 1152))), "projector": count(lambda: m.mm_projector_a(x(1, heard, 768))),
                     "decoder": count(lambda: m(inputs_embeds=x(1, places, 3584), attention_mask={"full_attention": None}, position_ids=torch.arange(places, device="meta")[None], use_cache=False)), "places": places}
        print(name, {k: round(v, 3) for k,v in out[name].items()}, flush=True)
    return out


def towers(n_rounds):
    "Decoded and computed, computed, read"
    import pandas as pd
    from popnb.simulation.clips import ClipSpec, write_clip
    from popnb.features.frame_cache import FrameRule, decode_frames, frame_set
    from popnb.features.audio_cache import SoundRule, decode_sound, sound_set
    from popnb.models.videollama2.inputs import AudioVisualSet
    from popnb.models.videollama2.feature_cache import cache_encoder_outputs
    out = dict(arithmetic=arithmetic())
    small = dict(SO400M, hidden_size=384, intermediate_size=1536, num_hidden_layers=8, num_attention_heads=6)
    cases = {"small towers": (VideoLlamaConfig.tiny(vision=small, beats=BeatsConfig(encoder_layers=6), frames=8), torch.float32, 2, n_rounds),
             "towers of the published size": (VideoLlamaConfig.tiny(vision=dict(SO400M), beats=BeatsConfig(), frames=8), torch.bfloat16, 1, 2)}
    rule,hearing = FrameRule(frames=8, policy="opening", resize=(384, 384), crop=384),SoundRule(8.)
    with tempfile.TemporaryDirectory() as d:
        d = Path(d)
        paths = [str(write_clip(ClipSpec(seed=i, frames=300, fps=30, size=(1280, 720), loudness=-20), d/f"{i}.mp4")) for i in range(2)]
        for name,(config,dtype,n,k) in cases.items():
            net,rows = drawn(config, dtype=dtype),pd.DataFrame({"video_path": paths[:n]})
            scenes = AudioVisualSet(frame_set(rows, rule, d/"store", 1), sound_set(rows, hearing, d/"store", 1), [{}]*n)
            start = time.process_time()
            kept = cache_encoder_outputs(net, scenes, batch=1)
            first,last = time.process_time()-start,{}
            def say(pixels, x):
                with torch.no_grad(): return net.encode_frames(torch.from_numpy(pixels)[None])[0],net.encode_audio(torch.from_numpy(x)[None])[0][0]
            def decode(i): return decode_frames(paths[i], rule)[0][0],decode_sound(paths[i], hearing)[0].astype(np.float32)/32768
            def load(i): return scenes.read_frames(i),scenes.read_audio(i)
            makes = {"decoded, towers computed": lambda i: say(*decode(i)), "frames and sound read, towers computed": lambda i: say(*load(i)), "towers read": lambda i: (kept.patches(i), kept.audio_tokens(i)), "decoded, no towers": decode, "frames and sound read, no towers": load}
            def way(how, f):
                def run(): last[how] = [f(i) for i in range(n)]
                return run
            ways = {how: way(how, f) for how,f in makes.items()}
            t = against(f"{name}, {n} clip{'s' if n > 1 else ''}", rounds(ways, k, warm=n > 1))
            same = [[torch.equal(a.to(b.dtype), b) for a,b in zip(u, v)] for how in list(makes)[:2] for u,v in zip(last[how], last["towers read"])]
            for o in t.values(): o["a_clip_ms"] = 1000*o["median_s"]/n
            out[name] = dict(clips=n, parameters={k: sum(p.numel() for m in net.part(k) for p in m.parameters()) for k in ("vision", "audio")}, mb_a_clip={k: v/1e6 for k,v in kept.sizes.items()}, equal_to_the_bit=all(map(all, same)), first_pass_s=first, dtype=str(dtype), ways=t)
            del net, kept
            gc.collect()
    return out


# --- filterbank

def plain_numpy(x, bank, window):
    "The same steps without torch, in double precision where numpy's transform has it"
    x = np.lib.stride_tricks.sliding_window_view(x*np.float32(2**15), 400)[::160]
    x = x-x.mean(1, keepdims=True)
    x = (x-np.float32(.97)*np.concatenate([x[:, :1], x[:, :-1]], 1))*window
    return np.log(np.maximum((np.abs(np.fft.rfft(x, 512))**2) @ bank, np.finfo(np.float32).eps))


def filterbank(n_rounds):
    "128 bins from 300 Hz, which Kaldi takes as well; popnb's also as the network hears it, from 20 Hz"
    import kaldi_native_fbank as knf
    from popnb.models.videollama2.filterbank import FBANK_RATE, log_mel, mel_bank, povey_window
    out,bank,window = {},mel_bank(128, 300.).numpy(),povey_window().numpy().astype(np.float32)
    def kaldi(x):
        o = knf.FbankOptions()
        o.frame_opts.samp_freq,o.frame_opts.dither,o.mel_opts.num_bins,o.mel_opts.low_freq = FBANK_RATE,0,128,300.
        f = knf.OnlineFbank(o)
        f.accept_waveform(FBANK_RATE, x*np.float32(2**15))
        f.input_finished()
        return np.stack([f.get_frame(i) for i in range(f.num_frames_ready)])
    for seconds,many in ((8, 1), (30, 1), (8, 8)):
        x = torch.clamp(.1*torch.randn(many, seconds*FBANK_RATE, generator=torch.Generator().manual_seed(0)), -1, 1)
        a = x.numpy()
        ways = {"popnb": lambda: log_mel(x, 128, 300.), "kaldi-native-fbank": lambda: [kaldi(o) for o in a], "numpy": lambda: [plain_numpy(o, bank, window) for o in a], "popnb, as the network hears": lambda: log_mel(x)}
        far = {k: float(np.abs(log_mel(x, 128, 300.).numpy()-np.stack(ways[k]())).max()) for k in ("kaldi-native-fbank", "numpy")}
        name = f"{seconds} s" + (f", {many} sounds" if many > 1 else "")
        t = against(name, rounds({k: (lambda f=f: [f() for _ in range(10)]) for k,f in ways.items()}, n_rounds))
        out[name] = dict(ways=t, largest_difference=far, calls=10, seconds_of_sound_a_second={k: 10*many*seconds/v["median_s"] for k,v in t.items()})
        print("  largest difference to popnb:", {k: f"{v:.0e}" for k,v in far.items()}, flush=True)
    return out


# --- wrapper

def wrapper(n_rounds):
    "The whole network against its bare parts"
    from popnb.models.videollama2.filterbank import log_mel
    config = VideoLlamaConfig.tiny(vocab_size=1000, hidden_size=256, intermediate_size=768, num_hidden_layers=6, num_attention_heads=8, num_key_value_heads=2, frames=4, depth=2, beats=BeatsConfig(encoder_layers=3, encoder_embed_dim=192, encoder_ffn_embed_dim=768, encoder_attention_heads=4, embed_dim=128),
                                   vision=dict(hidden_size=192, intermediate_size=768, num_hidden_layers=5, num_attention_heads=4, image_size=168, patch_size=14))
    net,g,out = drawn(config),torch.Generator().manual_seed(0),{}
    m,tower = net.model,net.model.vision_tower
    for n in (1, 4):
        pixels,sound = torch.randint(0, 256, (n, 4, 3, 168, 168), dtype=torch.uint8, generator=g),.1*torch.randn(n, 4*16000, generator=g)
        ids,mask = torch.randint(3, 1000, (n, 80), generator=g),torch.ones(n, 80, dtype=torch.long)
        ids[:, 10] = -201
        ready,energy,length = normalise_siglip(pixels).flatten(0, 1),log_mel(sound),torch.full((n,), sound.shape[1])
        def bare():
            with torch.no_grad():
                x = tower.vision_tower.embeddings(ready)
                for layer in tower.vision_tower.encoder.layers[:tower.layers]: x = layer(x, None)
                w = m.embed_tokens
                x = torch.cat([w(ids[:, :10]), m.mm_projector(x.unflatten(0, (n, 4))), m.mm_projector_a(m.audio_tower(energy)), w(ids[:, 11:])], 1)
                return net.lm_head_reg(m(inputs_embeds=x, use_cache=False).last_hidden_state.mean(1))
        def whole(**more):
            with torch.no_grad(): return net(ids, mask, **({"pixels": pixels, "sound": sound, "sound_length": length} | more))["prediction"]
        assert torch.allclose((bare()*net.scale[1]+net.scale[0]), whole(), atol=1e-5)
        ways = {"bare parts": bare, "VideoLlama2 on bytes and energies": lambda: whole(sound=energy, sound_length=torch.full((n,), energy.shape[1])), "VideoLlama2 on bytes and samples": whole}
        out[f"{n} clip{'s' if n > 1 else ''}"] = dict(parameters=sum(p.numel() for p in net.parameters()), ways=against(f"wrapper, {n} clips", rounds(ways, n_rounds)))
    return out


# --- true size, where there is a GPU

PEAKS = {"H200": 989, "H100 PCIe": 756, "H100": 989, "A100": 312, "L40S": 362, "RTX 4090": 165, "RTX 3090": 71, "A10": 125, "L4": 121}     # dense bfloat16, 10¹² operations a second, makers' figures


class Card:
    "What is asked of the device; a processor for rehearsal"
    def __init__(self, kind): self.kind,self.cuda = kind,kind == "cuda"
    @property
    def name(self): return torch.cuda.get_device_name() if self.cuda else platform.processor() or platform.machine()
    @property
    def peak(self): return next((v for k,v in PEAKS.items() if k in self.name), None)
    def wait(self): torch.cuda.synchronize() if self.cuda else None
    def fresh(self):
        gc.collect()
        if self.cuda: torch.cuda.empty_cache(); torch.cuda.reset_peak_memory_stats()
        else: Path("/proc/self/clear_refs").write_text("5")
    def most(self): return torch.cuda.max_memory_allocated() if self.cuda else 1024*int(next(l.split()[1] for l in open("/proc/self/status") if l.startswith("VmHWM")))


def shown(config, n, seconds, words=150):
    "What `SceneData` gives of `n` clips, and their targets"
    g,side = torch.Generator().manual_seed(0),config.vision["image_size"]
    ids = torch.randint(3, min(config.vocab_size, 50_000), (n, words), generator=g)
    ids[:, 20] = config.placeholder
    return dict(input_ids=ids, attention_mask=torch.ones_like(ids), pixels=torch.randint(0, 256, (n, config.frames, 3, side, side), dtype=torch.uint8, generator=g),
                sound=.1*torch.randn(n, round(seconds*16000), generator=g), sound_length=torch.full((n,), round(seconds*16000))),torch.linspace(.2, .8, n)


def on_gpu(n_rounds, kind="cuda", config=VideoLlamaConfig(), r=64, seconds=8.):
    "Prediction, LoRA and QLoRA"
    from torch.utils.flop_counter import FlopCounterMode
    from popnb.models.adapters import sizes
    from popnb.models.vlm.memory_plan import measure_rate
    card,out = Card(kind),{}
    rate = measure_rate(kind, True, 1.)
    def case(name, net, f, n):
        try:
            f()
            card.fresh()
            t = table(name, rounds({name: f}, n_rounds, time.perf_counter))[name]
            peak = card.most()
            with FlopCounterMode(display=False) as c: f()
        except torch.OutOfMemoryError as e:
            out[name] = dict(out_of_memory=str(e).split(". ")[0])
            print(f"{name}: {out[name]['out_of_memory']}", flush=True)
            net.zero_grad(set_to_none=True)
            return card.fresh()
        done = c.get_total_flops()/t["median_s"]
        out[name] = t | dict(clips_per_s=n/t["median_s"], peak_gb=peak/1e9, weights_gb=sizes(net)["bytes"]/1e9, tflops=done/1e12, share_of_measured_rate=done/rate, share_of_peak=card.peak and done/1e12/card.peak)
        print(f"  {n/t['median_s']:8.3f} clips/s   peak {peak/1e9:6.2f} GB   {done/1e12:7.2f} TFLOP/s, {done/rate:.2f} of a large product's rate" + (f", {done/1e12/card.peak:.2f} of the chip's peak" if card.peak else ""), flush=True)
    for method in ("predict", "lora", "qlora"):
        net = drawn(config, kind, torch.bfloat16)
        if method != "predict":
            adapt_videollama2(net, method, r=r, alpha=16, dropout=.05)
            net.gradient_checkpointing_enable()
            opt = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=1e-5)
        for n in (1, 4):
            batch,target = shown(config, n, seconds)
            def predict(batch=batch):
                with torch.inference_mode(): net.eval()(**{k: v.to(kind) for k,v in batch.items()})
                card.wait()
            def step():
                with torch.autocast(kind, torch.bfloat16): loss = net.train()(**{k: v.to(kind) for k,v in batch.items()}, target=target.to(kind))["loss"]
                loss.backward()
                torch.nn.utils.clip_grad_norm_([p for p in net.parameters() if p.requires_grad], 1.)
                opt.step()
                opt.zero_grad(set_to_none=True)
                card.wait()
            if method != "predict": case(f"{method}, batch {n}", net, step, n); continue
            case(f"prediction, batch {n}", net, predict, n)
            with torch.inference_mode():
                heard,count = net.encode_audio(batch["sound"].to(kind), batch["sound_length"].to(kind))
                kept = {k: v for k,v in batch.items() if k not in ("pixels", "sound")} | dict(patches=net.encode_frames(batch["pixels"].to(kind)).cpu(), audio_tokens=heard.to(torch.bfloat16).cpu(), sound_length=count.cpu())
            case(f"prediction from kept towers, batch {n}", net, lambda: predict(kept), n)
        net = opt = None
        card.fresh()
    return dict(device=card.name, torch=torch.__version__, rate_of_a_large_product=rate/1e12, makers_peak=card.peak, sound_s=seconds, rank=r, cases=out)


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--parts", default="towers,filterbank,wrapper,memory,gpu", help="which of them")
    p.add_argument("--rounds", type=int, default=7, help="repetitions of parts 1 to 3 and 5")
    p.add_argument("--only", help="cases of part 4 with this in their name")
    p.add_argument("--more", action="store_true", help="only cases of part 4 that the JSON has not")
    p.add_argument("--rehearse", action="store_true", help="part 5 on the processor, with a tiny network; nothing is written")
    p.add_argument("--out", default="bench/results/videollama2.json", help="where the JSON goes; parts that are not run stay in it")
    a = p.parse_args()
    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    print(f"load of the machine: {load:.2f}", flush=True)
    if a.rehearse: on_gpu(2, "cpu", VideoLlamaConfig.tiny(), 4, 1.); sys.exit()
    keep = keeper(a.out, ("torch", "transformers", "peft", "bitsandbytes", "kaldi-native-fbank"), load_at_the_start=load)
    for name,f in (("towers", towers), ("filterbank", filterbank), ("wrapper", lambda n: wrapper(3*n))):
        if name in a.parts.split(","): keep(name, f(a.rounds))
    if "memory" in a.parts.split(","):
        from videollama2_memory import memory
        memory(a.only, read_json(a.out).get("memory", {}) if a.more and Path(a.out).exists() else {}, keep)
    if "gpu" in a.parts.split(","):
        if torch.cuda.is_available(): keep("gpu", on_gpu(a.rounds))
        else: print("gpu: there is no CUDA device here, so the true size was not measured; --rehearse runs its code on the processor with a tiny network.")
