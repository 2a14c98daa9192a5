"""VideoLLaMA2: gain of cached encoder outputs, cost of filterbank and wrapper, memory, and the true size on a GPU

    python bench/videollama2.py [--parts towers,filterbank,wrapper,memory,gpu] [--rounds 7] [--only NAME] [--more]
                                [--out bench/results/videollama2.json]

1. towers. The second pass over clips against the first: decode frames and audio and compute both frozen encoders; read
   frames and audio from the store and compute the encoders; read the cached encoder outputs from the store. Clips of
   10 s in 720p; once with small encoders and several rounds, once with both encoders at their published size (random
   weights in bfloat16, one clip, two rounds). The operations of the whole network at true size, part by part, show what
   that means for a training.
2. filterbank. Log-mel energies of one clip's audio and of eight: popnb's in torch, kaldi-native-fbank, and a plain one
   in numpy.
3. wrapper. The network on bytes and samples against its bare parts (SigLIP's layers, connector, BEATs, projector,
   decoder, head) on normalised pixels and on energies; with equal lengths, so that the bare parts need no padding.
4. memory. Planned against measured memory, described in bench/videollama2_memory.py.
5. gpu, only with CUDA: the true size with random weights, built layer by layer in bfloat16: prediction (from bytes and
   from cached encoder outputs), and training steps with LoRA and QLoRA as in the recipe (rank 64, activation
   checkpointing) at batch 1 and 4: clips per second, peak of the allocator, arithmetic as a share of the chip's peak
   and of the measured rate of one large matrix product. Without a GPU the script says so; `--rehearse` runs the same
   code with a tiny network on the CPU, as a test of the code.

Parts 1 to 3: processor time of one thread, alternating rounds (A B A B); medians, ratios with an interval of 95 %
(bootstrap over rounds) and every single time go into the JSON.
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

from process_memory import process_bytes, train_step
from timing import result_writer, rounds, table
from popnb.core import read_json
from popnb.models.videollama2.beats import BeatsConfig
from popnb.models.videollama2.checkpoints import empty_videollama2
from popnb.models.videollama2.network import (SO400M, VideoLlama2, VideoLlamaConfig, adapt_videollama2,
    normalise_siglip)

warnings.filterwarnings("ignore")


def bootstrap_table(title, times):
    "`table`, with a bootstrap interval of 95 % of each way's ratio to the first; rounds are resampled in pairs"
    out,rng = table(title, times),np.random.default_rng(0)
    first = np.array(next(iter(times.values())))
    at = rng.integers(len(first), size=(10_000, len(first)))
    for k,t in times.items():
        if len(first) < 4: continue               # too few rounds to resample
        r = np.median(first[at], 1)/np.median(np.array(t)[at], 1)
        out[k]["first_over_this_95"] = np.quantile(r, [.025, .975]).tolist()
    return out


def random_network(config, device="cpu", dtype=torch.float32, **options):
    "A network with random weights, built in its final precision so that it never takes more memory"
    from transformers.initialization import no_init_weights
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device), no_init_weights(): net = VideoLlama2(config, scale=(.5, .2), **options)
    finally: torch.set_default_dtype(torch.float32)
    torch.manual_seed(0)
    with torch.no_grad():
        for n,p in net.named_parameters():
            if p.ndim > 1: p.normal_(std=.02)
            else: p.fill_(float(n.endswith("weight")))
        for n,p in net.named_parameters():
            if n.endswith(("weight_g", "grep_a")): p.fill_(1.)
    return net.eval()


# --- 1. cached encoder outputs

def count_operations(f):
    "10^12 floating point operations of a call"
    from torch.utils.flop_counter import FlopCounterMode
    with FlopCounterMode(display=False) as c, torch.no_grad(): f()
    return c.get_total_flops()/1e12


def clip_operations(model, seconds):
    "10^12 operations of each part for a clip with `seconds` of audio, and the length of its sequence"
    from popnb.models.videollama2.beats import n_tokens
    from popnb.models.videollama2.filterbank import n_frames
    def x(*shape): return torch.empty(shape, device="meta")
    frames = n_frames(seconds*16000)
    tokens = n_tokens(frames)
    length = 676+tokens+150
    sequence = dict(inputs_embeds=x(1, length, 3584), attention_mask={"full_attention": None},
        position_ids=torch.arange(length, device="meta")[None], use_cache=False)
    parts = {
        "vision tower": lambda: model.vision_tower(x(8, 3, 384, 384)),
        "audio tower": lambda: model.audio_tower(x(1, frames, 128)),
        "connector": lambda: model.mm_projector(x(1, 8, 729, 1152)),
        "projector": lambda: model.mm_projector_a(x(1, tokens, 768)),
        "decoder": lambda: model(**sequence)}
    return {k: count_operations(f) for k,f in parts.items()} | {"places": length}


def arithmetic():
    "Operations of a forward pass of one clip at true size, by part, on the meta device"
    model,out = empty_videollama2().model,{}
    for seconds,name in ((8, "8 s of sound"), (30, "30 s, as published")):
        out[name] = clip_operations(model, seconds)
        print(name, {k: round(v, 3) for k,v in out[name].items()}, flush=True)
    return out


def encoder_ways(net, cached, clips, paths, rule, sound_rule):
    "Functions of a row that return visual and audio features, or frames and audio"
    from popnb.features.audio_cache import decode_sound
    from popnb.features.frame_cache import decode_frames
    def encode(pixels, samples):
        with torch.no_grad():
            patches = net.encode_frames(torch.from_numpy(pixels)[None])[0]
            return patches,net.encode_audio(torch.from_numpy(samples)[None])[0][0]
    def decode(i):
        samples = decode_sound(paths[i], sound_rule)[0].astype(np.float32)/32768
        return decode_frames(paths[i], rule)[0][0],samples
    def read(i): return clips.read_frames(i),clips.read_audio(i)
    return {
        "decoded, towers computed": lambda i: encode(*decode(i)),
        "frames and sound read, towers computed": lambda i: encode(*read(i)),
        "towers read": lambda i: (cached.patches(i), cached.audio_tokens(i)),
        "decoded, no towers": decode,
        "frames and sound read, no towers": read}


def time_encoders(name, net, paths, rule, sound_rule, store, n_rounds):
    "Time the ways to the encoder outputs of some clips"
    import pandas as pd
    from popnb.features.audio_cache import sound_set
    from popnb.features.frame_cache import frame_set
    from popnb.models.videollama2.feature_cache import cache_encoder_outputs
    from popnb.models.videollama2.inputs import AudioVisualSet
    rows,n = pd.DataFrame({"video_path": paths}),len(paths)
    clips = AudioVisualSet(frame_set(rows, rule, store, 1), sound_set(rows, sound_rule, store, 1), [{}]*n)
    start = time.process_time()
    cached = cache_encoder_outputs(net, clips, batch=1)
    first_pass,last = time.process_time()-start,{}
    def way(k, f):
        def run(): last[k] = [f(i) for i in range(n)]
        return run
    ways = {k: way(k, f) for k,f in encoder_ways(net, cached, clips, paths, rule, sound_rule).items()}
    times = rounds(ways, n_rounds, warm=n > 1)
    t = bootstrap_table(f"{name}, {n} clip{'s' if n > 1 else ''}", times)
    for o in t.values(): o["a_clip_ms"] = 1000*o["median_s"]/n
    computed = [last[k] for k in ways if k.endswith("towers computed")]
    equal = all(torch.equal(a.to(b.dtype), b) for outputs in computed
                for u,v in zip(outputs, last["towers read"]) for a,b in zip(u, v))
    parameters = {k: sum(p.numel() for m in net.part(k) for p in m.parameters()) for k in ("vision", "audio")}
    return dict(clips=n, parameters=parameters, mb_a_clip={k: v/1e6 for k,v in cached.sizes.items()},
        equal_to_the_bit=equal, first_pass_s=first_pass, ways=t)


def towers(n_rounds):
    "Encoder outputs decoded and computed, computed from cached inputs, and read from the cache"
    from popnb.features.audio_cache import SoundRule
    from popnb.features.frame_cache import FrameRule
    from popnb.simulation.clips import ClipSpec, write_clip
    out = dict(arithmetic=arithmetic())
    small = dict(SO400M, hidden_size=384, intermediate_size=1536, num_hidden_layers=8, num_attention_heads=6)
    few_layers = VideoLlamaConfig.tiny(vision=small, beats=BeatsConfig(encoder_layers=6), frames=8)
    published = VideoLlamaConfig.tiny(vision=dict(SO400M), beats=BeatsConfig(), frames=8)
    cases = {
        "small towers": (few_layers, torch.float32, 2, n_rounds),
        "towers of the published size": (published, torch.bfloat16, 1, 2)}
    rule = FrameRule(frames=8, policy="opening", resize=(384, 384), crop=384)
    with tempfile.TemporaryDirectory() as d:
        d = Path(d)
        specs = [ClipSpec(seed=i, frames=300, fps=30, size=(1280, 720), loudness=-20) for i in range(2)]
        paths = [str(write_clip(s, d/f"{i}.mp4")) for i,s in enumerate(specs)]
        for name,(config,dtype,n,k) in cases.items():
            net = random_network(config, dtype=dtype)
            o = time_encoders(name, net, paths[:n], rule, SoundRule(8.), d/"store", k)
            out[name] = o | dict(dtype=str(dtype))
            del net
            gc.collect()
    return out


# --- 2. filterbank

def numpy_log_mel(x, bank, window):
    "Log-mel energies without torch; numpy's Fourier transform has double precision"
    x = np.lib.stride_tricks.sliding_window_view(x*np.float32(2**15), 400)[::160]
    x = x-x.mean(1, keepdims=True)
    x = (x-np.float32(.97)*np.concatenate([x[:, :1], x[:, :-1]], 1))*window
    return np.log(np.maximum((np.abs(np.fft.rfft(x, 512))**2) @ bank, np.finfo(np.float32).eps))


def kaldi_log_mel(x):
    "Log-mel energies of kaldi-native-fbank"
    import kaldi_native_fbank as knf
    from popnb.models.videollama2.filterbank import FBANK_RATE
    o = knf.FbankOptions()
    o.frame_opts.samp_freq = FBANK_RATE
    o.frame_opts.dither = 0
    o.mel_opts.num_bins = 128
    o.mel_opts.low_freq = 300.
    f = knf.OnlineFbank(o)
    f.accept_waveform(FBANK_RATE, x*np.float32(2**15))
    f.input_finished()
    return np.stack([f.get_frame(i) for i in range(f.num_frames_ready)])


def time_filterbank(name, seconds, many, n_rounds, calls=10):
    "Time the filterbanks on `many` clips with `seconds` of audio, and compare their energies"
    from popnb.models.videollama2.filterbank import FBANK_RATE, log_mel, mel_bank, povey_window
    bank,window = mel_bank(128, 300.).numpy(),povey_window().numpy().astype(np.float32)
    g = torch.Generator().manual_seed(0)
    x = torch.clamp(.1*torch.randn(many, seconds*FBANK_RATE, generator=g), -1, 1)
    a = x.numpy()
    ways = {
        "popnb": lambda: log_mel(x, 128, 300.),
        "kaldi-native-fbank": lambda: [kaldi_log_mel(o) for o in a],
        "numpy": lambda: [numpy_log_mel(o, bank, window) for o in a],
        "popnb, as in the network": lambda: log_mel(x)}
    energies = log_mel(x, 128, 300.).numpy()
    difference = {k: float(np.abs(energies-np.stack(ways[k]())).max()) for k in ("kaldi-native-fbank", "numpy")}
    times = rounds({k: (lambda f=f: [f() for _ in range(calls)]) for k,f in ways.items()}, n_rounds)
    t = bootstrap_table(name, times)
    print("  largest difference to popnb:", {k: f"{v:.0e}" for k,v in difference.items()}, flush=True)
    return dict(ways=t, largest_difference=difference, calls=calls,
        seconds_of_sound_a_second={k: calls*many*seconds/v["median_s"] for k,v in t.items()})


def filterbank(n_rounds):
    "128 bins from 300 Hz, a range that Kaldi accepts; popnb's also as in the network, from 20 Hz"
    cases = {"8 s": (8, 1), "30 s": (30, 1), "8 s, 8 sounds": (8, 8)}
    return {name: time_filterbank(name, *c, n_rounds) for name,c in cases.items()}


# --- 3. wrapper

def wrapper_config():
    "A small network whose decoder and encoders have several layers"
    beats = BeatsConfig(encoder_layers=3, encoder_embed_dim=192, encoder_ffn_embed_dim=768, encoder_attention_heads=4,
        embed_dim=128)
    vision = dict(hidden_size=192, intermediate_size=768, num_hidden_layers=5, num_attention_heads=4, image_size=168,
        patch_size=14)
    return VideoLlamaConfig.tiny(vocab_size=1000, hidden_size=256, intermediate_size=768, num_hidden_layers=6,
        num_attention_heads=8, num_key_value_heads=2, frames=4, depth=2, beats=beats, vision=vision)


def time_wrapper(net, n, g, n_rounds):
    "Time the network and its bare parts on `n` clips"
    from popnb.models.videollama2.filterbank import log_mel
    m,vision = net.model,net.model.vision_tower
    pixels = torch.randint(0, 256, (n, 4, 3, 168, 168), dtype=torch.uint8, generator=g)
    sound = .1*torch.randn(n, 4*16000, generator=g)
    ids,mask = torch.randint(3, 1000, (n, 80), generator=g),torch.ones(n, 80, dtype=torch.long)
    ids[:, 10] = -201
    ready,energy = normalise_siglip(pixels).flatten(0, 1),log_mel(sound)
    def full(length): return torch.full((n,), length)
    def bare():
        with torch.no_grad():
            x = vision.vision_tower.embeddings(ready)
            for layer in vision.vision_tower.encoder.layers[:vision.layers]: x = layer(x, None)
            frames,audio = m.mm_projector(x.unflatten(0, (n, 4))),m.mm_projector_a(m.audio_tower(energy))
            x = torch.cat([m.embed_tokens(ids[:, :10]), frames, audio, m.embed_tokens(ids[:, 11:])], 1)
            return net.lm_head_reg(m(inputs_embeds=x, use_cache=False).last_hidden_state.mean(1))
    def whole(sound, length):
        with torch.no_grad(): return net(ids, mask, pixels=pixels, sound=sound, sound_length=length)["prediction"]
    def on_samples(): return whole(sound, full(sound.shape[1]))
    def on_energies(): return whole(energy, full(energy.shape[1]))
    assert torch.allclose((bare()*net.scale[1]+net.scale[0]), on_samples(), atol=1e-5)
    ways = {
        "bare parts": bare,
        "VideoLlama2 on bytes and energies": on_energies,
        "VideoLlama2 on bytes and samples": on_samples}
    parameters = sum(p.numel() for p in net.parameters())
    return dict(parameters=parameters, ways=bootstrap_table(f"wrapper, {n} clips", rounds(ways, n_rounds)))


def wrapper(n_rounds):
    "The whole network against its bare parts"
    net,g = random_network(wrapper_config()),torch.Generator().manual_seed(0)
    return {name: time_wrapper(net, n, g, n_rounds) for name,n in {"1 clip": 1, "4 clips": 4}.items()}


# --- 5. true size on a GPU

# dense bfloat16, 10^12 operations per second, from the manufacturers' data sheets
PEAKS = {"H200": 989, "H100 PCIe": 756, "H100": 989, "A100": 312, "L40S": 362, "RTX 4090": 165, "RTX 3090": 71,
    "A10": 125, "L4": 121}


class Device:
    "A GPU, or the CPU for `--rehearse`: name, peak rate, peak memory"
    def __init__(self, kind):
        self.kind = kind
        self.cuda = kind == "cuda"
    @property
    def name(self):
        return torch.cuda.get_device_name() if self.cuda else platform.processor() or platform.machine()
    @property
    def peak(self): return next((v for k,v in PEAKS.items() if k in self.name), None)
    def wait(self):
        if self.cuda: torch.cuda.synchronize()
    def reset_peak(self):
        gc.collect()
        if not self.cuda: return Path("/proc/self/clear_refs").write_text("5")
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    def peak_memory(self): return torch.cuda.max_memory_allocated() if self.cuda else process_bytes("VmHWM")


def random_inputs(config, n, seconds, words=150):
    "Inputs of `n` clips, as from `AudioVisualDataset`, and their targets"
    g,side = torch.Generator().manual_seed(0),config.vision["image_size"]
    ids = torch.randint(3, min(config.vocab_size, 50_000), (n, words), generator=g)
    ids[:, 20] = config.placeholder
    samples = round(seconds*16000)
    pixels = torch.randint(0, 256, (n, config.frames, 3, side, side), dtype=torch.uint8, generator=g)
    batch = dict(input_ids=ids, attention_mask=torch.ones_like(ids), pixels=pixels,
        sound=.1*torch.randn(n, samples, generator=g), sound_length=torch.full((n,), samples))
    return batch,torch.linspace(.2, .8, n)


def measure_pass(device, name, net, f, n, rate, n_rounds):
    "Time, peak memory and arithmetic of one pass; only the message if it runs out of memory"
    from torch.utils.flop_counter import FlopCounterMode
    from popnb.models.adapters import sizes
    try:
        f()
        device.reset_peak()
        t = table(name, rounds({name: f}, n_rounds, time.perf_counter))[name]
        memory = device.peak_memory()
        with FlopCounterMode(display=False) as c: f()
    except torch.OutOfMemoryError as e:
        message = str(e).split(". ")[0]
        print(f"{name}: {message}", flush=True)
        net.zero_grad(set_to_none=True)
        device.reset_peak()
        return dict(out_of_memory=message)
    ops,peak = c.get_total_flops()/t["median_s"],device.peak
    of_peak = f", {ops/1e12/peak:.2f} of the chip's peak" if peak else ""
    print(f"  {n/t['median_s']:8.3f} clips/s   peak {memory/1e9:6.2f} GB   {ops/1e12:7.2f} TFLOP/s,"
          f" {ops/rate:.2f} of a large product's rate{of_peak}", flush=True)
    return t | dict(clips_per_s=n/t["median_s"], peak_gb=memory/1e9, weights_gb=sizes(net)["bytes"]/1e9,
        tflops=ops/1e12, share_of_measured_rate=ops/rate, share_of_peak=peak and ops/1e12/peak)


def cached_inputs(net, batch, kind):
    "The inputs of a batch with encoder outputs in place of frames and audio"
    with torch.inference_mode():
        tokens,count = net.encode_audio(batch["sound"].to(kind), batch["sound_length"].to(kind))
        patches = net.encode_frames(batch["pixels"].to(kind)).cpu()
    text = {k: v for k,v in batch.items() if k not in ("pixels", "sound")}
    return text | dict(patches=patches, audio_tokens=tokens.to(torch.bfloat16).cpu(), sound_length=count.cpu())


def predict_cases(net, device, config, seconds, measure):
    "Prediction from bytes and from cached encoder outputs, in batches of 1 and 4"
    out = {}
    for n in (1, 4):
        batch,_ = random_inputs(config, n, seconds)
        def predict(inputs):
            with torch.inference_mode(): net.eval()(**{k: v.to(device.kind) for k,v in inputs.items()})
            device.wait()
        name = f"prediction, batch {n}"
        out[name] = measure(name, net, lambda: predict(batch), n)
        cached = cached_inputs(net, batch, device.kind)
        name = f"prediction from cached encoder outputs, batch {n}"
        out[name] = measure(name, net, lambda: predict(cached), n)
    return out


def train_cases(net, device, config, seconds, method, measure):
    "Training steps in batches of 1 and 4"
    opt,out = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=1e-5),{}
    for n in (1, 4):
        batch,target = random_inputs(config, n, seconds)
        def step():
            inputs = {k: v.to(device.kind) for k,v in batch.items()} | {"target": target.to(device.kind)}
            train_step(net.train(), opt, inputs, True, device.kind)
            device.wait()
        name = f"{method}, batch {n}"
        out[name] = measure(name, net, step, n)
    return out


def on_gpu(n_rounds, kind="cuda", config=VideoLlamaConfig(), r=64, seconds=8.):
    "Prediction, LoRA and QLoRA"
    from popnb.models.vlm.memory_plan import measure_rate
    device,out = Device(kind),{}
    rate = measure_rate(kind, True, 1.)
    def measure(name, net, f, n): return measure_pass(device, name, net, f, n, rate, n_rounds)
    for method in ("predict", "lora", "qlora"):
        net = random_network(config, kind, torch.bfloat16)
        if method == "predict": out |= predict_cases(net, device, config, seconds, measure)
        else:
            adapt_videollama2(net, method, r=r, alpha=16, dropout=.05)
            net.gradient_checkpointing_enable()
            out |= train_cases(net, device, config, seconds, method, measure)
        net = None
        device.reset_peak()
    return dict(device=device.name, torch=torch.__version__, rate_of_a_large_product=rate/1e12,
        makers_peak=device.peak, sound_s=seconds, rank=r, cases=out)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--parts", default="towers,filterbank,wrapper,memory,gpu", help="parts to run")
    p.add_argument("--rounds", type=int, default=7, help="repetitions of parts 1 to 3 and 5")
    p.add_argument("--only", help="cases of part 4 whose name contains this")
    p.add_argument("--more", action="store_true", help="only cases of part 4 that the JSON lacks")
    p.add_argument("--rehearse", action="store_true",
        help="part 5 with a tiny network on the CPU; nothing is written")
    p.add_argument("--out", default="bench/results/videollama2.json",
        help="JSON file; parts that are not run stay in it")
    a = p.parse_args()
    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    print(f"load of the machine: {load:.2f}", flush=True)
    if a.rehearse:
        on_gpu(2, "cpu", VideoLlamaConfig.tiny(), 4, 1.)
        return
    packages = ("torch", "transformers", "peft", "bitsandbytes", "kaldi-native-fbank")
    write,parts = result_writer(a.out, packages, load_at_the_start=load),a.parts.split(",")
    for name,f in (("towers", towers), ("filterbank", filterbank), ("wrapper", lambda n: wrapper(3*n))):
        if name in parts: write(name, f(a.rounds))
    if "memory" in parts:
        from videollama2_memory import memory
        done = read_json(a.out).get("memory", {}) if a.more and Path(a.out).exists() else {}
        memory(a.only, done, write)
    if "gpu" in parts:
        if torch.cuda.is_available(): write("gpu", on_gpu(a.rounds))
        else: print("gpu: no CUDA device here, the true size is not measured; --rehearse runs the code on the CPU.")


if __name__ == "__main__": sys.exit(main())
