"""What do the parts of the smtpd system cost?

    python bench/smtpd.py [--rounds 5] [--rows 16] [--out bench/results/smtpd.json]

1. The thirty days of the LSTM head: all days in one batched computation against the published loop over a list of
   modules, with the same weights; at the published width and at an eighth of it, where launching operations dominates;
   batches of 1, 64 and 1,024; prediction and a training step (forward and backward).
2. An epoch from cached features against one that recomputes the frozen encoders, on the same batches: ResNet-101 and a
   BERT of mBERT's size with random weights, five texts of 64 tokens and one 224 x 224 picture per row, evaluation mode,
   no gradients, float32. Both run training steps of the published network in the published batches of 64. One round
   after a warm-up. Only the ratio per batch is stated; nothing is extrapolated to a larger set.
3. The five folds of 282,000 rows by `protocol_split` (the published shuffle, seed 23), and by the published membership
   test in a list, on 2,000, 4,000 and 8,000 rows: its time grows with the square of the rows.
4. Memory: the arrays of 282,000 rows, filled in chunks, as a plan (bytes per row) and as the measured growth of the
   process.

Rounds alternate in one process; medians, ratios and every single time go into the JSON. Times are processor time
(process time) of one thread, so that the machine's other work disturbs them less; part 4 reads /proc.
"""
import argparse
import random

import numpy as np
import pandas as pd
import torch

from timing import result_writer, rounds, table
from popnb.data.splits import protocol_split
from popnb.models.smtpd.inputs import ArrayDataset
from popnb.models.smtpd.network import NetConfig, SmtpdNet
from popnb.models.smtpd.temporal_heads import LSTMSteps, Unrolled, stack_steps

ROWS = 282_000


def predict(m, x):
    m.eval()
    with torch.inference_mode(): m(x)


def train_step(m, x):
    m.train()
    m.zero_grad(set_to_none=True)
    m(x).square().mean().backward()


def compare_heads(title, nets, f, x, inner, n_rounds):
    "Time `f` on both heads, `inner` calls per measurement"
    def way(net): return lambda: [f(net, x) for _ in range(inner)]
    ways = {name: way(net) for name,net in nets.items()}
    return table(title + (f" ({inner} times)" if inner > 1 else ""), rounds(ways, n_rounds))


def heads(n_rounds):
    "Part 1: the published loop over days against the batched LSTM head"
    out = {}
    for hidden in (128, 16):
        torch.manual_seed(0)
        loop,batched = Unrolled(4*hidden, hidden, 30),LSTMSteps(4*hidden, hidden, 30)
        batched.load_state_dict(stack_steps(loop.state_dict()))
        nets = {"loop over days": loop, "days together": batched}
        for n in (1, 64, 1024):
            x = torch.randn(n, 4*hidden)
            k = max(3, n_rounds if n < 1000 else n_rounds//2)
            inner = 20 if hidden == 16 and n < 1000 else 1
            for what,f in (("prediction", predict), ("training step", train_step)):
                title = f"hidden {hidden}, batch {n}, {what}"
                out[title] = compare_heads(title, nets, f, x, inner, k)
    return out


def frozen_encoders():
    "ResNet-101 and a BERT of mBERT's size with random weights, in evaluation mode"
    from torchvision.models import resnet101
    from transformers import BertConfig, BertModel
    torch.manual_seed(0)
    vision = resnet101()
    vision.fc = torch.nn.Identity()
    bert = BertModel(BertConfig(vocab_size=119_547))
    return vision.eval(),bert.eval()


def epochs(n_rounds, rows, batch=64):
    "Part 2: training from cached features against recomputing the frozen encoders in every step"
    vision,bert = frozen_encoders()
    pictures,tokens = torch.rand(rows, 3, 224, 224),torch.randint(1000, 100_000, (rows, 5, 64))
    inputs = dict(
        numbers=torch.randn(rows, 6), category=torch.randint(16, (rows,)), language=torch.randint(7, (rows,)),
        target=torch.rand(rows, 30)*10)
    def encode(i):
        with torch.inference_mode():
            image = vision(pictures[i])
            text = bert(tokens[i].flatten(0, 1)).pooler_output.view(len(i), 5, -1)
        return image.clone(),text.clone()
    parts = torch.arange(rows).split(batch)
    images,texts = zip(*(encode(i) for i in parts))
    data = ArrayDataset(
        image=torch.cat(images).half().numpy(), text=torch.cat(texts).half().numpy(),
        **{k: v.numpy() for k,v in inputs.items()})
    net = SmtpdNet(NetConfig(flags=False)).train()
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-3)
    def train(image, text, **others):
        optimiser.zero_grad()
        net(image, text, **others)["loss"].backward()
        optimiser.step()
    def cached():
        for i in parts: train(**data.__getitems__(i.numpy()))
    def recomputed():
        for i in parts: train(*encode(i), **{k: v[i] for k,v in inputs.items()})
    ways = {"recomputed, with training": recomputed, "cached, with training": cached}
    out = table(f"{rows} rows in batches of {batch}", rounds(ways, n_rounds))
    return dict(rows=rows, batch=batch, whole_epoch=out)


def published_fold(ids, fold=0):
    "Training and test rows as in both published codes: a membership test in a list, row by row"
    shuffled = list(range(len(ids)))
    random.Random(23).shuffle(shuffled)
    m = len(ids)//5
    test = shuffled[fold*m:(fold+1)*m]
    return [i for i in shuffled if i not in test],test


def folds(n_rounds):
    "Part 3: `protocol_split` against the published membership test"
    full = pd.DataFrame({"video_id": [f"v{i:06d}" for i in range(ROWS)]})
    def one(): return protocol_split("smtpd", full, fold=0)
    def five(): return [protocol_split("smtpd", full, fold=f) for f in range(5)]
    out = {}
    times = rounds({"protocol_split, one fold": one}, n_rounds)
    out["protocol_split, one fold of 282,000"] = table("282,000 rows", times)
    times = rounds({"protocol_split, five folds": five}, 2)
    out["protocol_split, all five folds"] = table("282,000 rows", times)
    for n in (2000, 4000, 8000):
        small = full[:n]
        ids = protocol_split("smtpd", small).ids["test"]
        assert sorted(published_fold(range(n))[1]) == sorted(int(v[1:]) for v in ids)
        ways = {
            "list membership": lambda: published_fold(range(n)),
            "protocol_split": lambda: protocol_split("smtpd", small)}
        out[f"{n} rows"] = table(f"{n} rows, one fold", rounds(ways, 2))
    return out


def resident():
    "Resident memory of this process in MB"
    return int(next(o.split()[1] for o in open("/proc/self/status") if o.startswith("VmRSS")))/1024


def memory(n=ROWS):
    "Part 4: planned and measured memory of the training arrays"
    plan = {
        "picture, 2048 float16": 4096,
        "texts, 5 x 768 float16": 7680,
        "numbers, 6 float32": 24,
        "category and language, int64": 16,
        "target, 30 float32": 120,
        "anchor, 30 float32": 120}
    before = resident()
    arrays = dict(
        image=np.empty((n, 2048), np.float16),
        text=np.empty((n, 5, 768), np.float16),
        numbers=np.zeros((n, 6), np.float32)+1,
        category=np.ones(n, np.int64),
        language=np.ones(n, np.int64),
        target=np.ones((n, 30), np.float32),
        anchor=np.ones((n, 30), np.float32))
    for i in range(0, n, 4096):
        arrays["image"][i:i+4096] = 1
        arrays["text"][i:i+4096] = 1
    data = ArrayDataset(**arrays)
    measured = resident()-before
    rng = np.random.default_rng(0)
    for _ in range(50): data.__getitems__(rng.integers(0, n, 64))
    batches = resident()-before-measured
    weights = sum(p.numel() for p in SmtpdNet(NetConfig(flags=False)).parameters())
    out = dict(rows=n, bytes_a_row=plan, planned_mb=sum(plan.values())*n/2**20, measured_mb=measured,
        after_50_batches_mb=batches, network_with_gradient_and_adam_mb=weights*16/2**20)
    figures = ", ".join(f"{k} {v:,.0f}" for k,v in out.items() if isinstance(v, float))
    print(f"\nmemory of 282,000 rows: {figures}", flush=True)
    return out


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rounds", type=int, default=5, help="repetitions of parts 1 and 3")
    p.add_argument("--rows", type=int, default=64, help="rows of part 2, in batches of 64")
    p.add_argument("--out", default="bench/results/smtpd.json", help="JSON file")
    a = p.parse_args()
    torch.set_num_threads(1)
    parts = dict(heads=heads(a.rounds), folds=folds(a.rounds), epochs=epochs(1, a.rows), memory=memory())
    write = result_writer(a.out, ("torch", "numpy"))
    for name,part in parts.items(): write(name, part)
