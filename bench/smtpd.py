"""What the parts of the smtpd system cost

    python bench/smtpd.py [--rounds 5] [--rows 16] [--out bench/results/smtpd.json]

1. The thirty days of the LSTM head: computed together against the published list of modules, with the same weights; at the
   published width and at an eighth of it, where launching operations dominates; batches of 1, 64 and 1,024; prediction and
   a training step (forward and backward).
2. An epoch from cached features against one that recomputes the frozen encoders, on the same batches: ResNet-101 and a
   BERT of mBERT's size with random weights, five texts of 64 tokens and one 224 x 224 picture a row, evaluation mode,
   no gradients, float32. Training steps of the published network on either, in the published batches of 64. One round after
   a warm-up. Only the ratio per batch is stated; nothing is extrapolated to a larger set.
3. The five folds of 282,000 rows by `protocol_split` (the published shuffle, seed 23), and by the published way, list
   membership, on 2,000, 4,000 and 8,000 rows: it grows with the square.
4. Memory: the arrays of 282,000 rows are made in chunks, as a plan (bytes a row) and as the measured growth of the process.

Rounds alternate in one process; medians, ratios and every single time go into the JSON. Times are of the processor
(process time) where one thread works, so that neighbours on the machine disturb them less; part 4 reads /proc.
"""
import argparse
import platform
import random
from importlib.metadata import version

import numpy as np
import pandas as pd
import torch

from timing import rounds, table
from popnb.core import write_json
from popnb.data.splits import protocol_split
from popnb.models.smtpd.inputs import ArrayDataset
from popnb.models.smtpd.network import NetConfig, SmtpdNet
from popnb.models.smtpd.temporal_heads import LSTMSteps, Unrolled, stack_steps


def heads(n_rounds):
    out = {}
    for hidden in (128, 16):
        torch.manual_seed(0)
        loop,together = Unrolled(4*hidden, hidden, 30),LSTMSteps(4*hidden, hidden, 30)
        together.load_state_dict(stack_steps(loop.state_dict()))
        def predict(m, x):
            m.eval()
            with torch.inference_mode(): m(x)
        def step(m, x):
            m.train()
            m.zero_grad(set_to_none=True)
            m(x).square().mean().backward()
        for n in (1, 64, 1024):
            x = torch.randn(n, 4*hidden)
            k = max(3, n_rounds if n < 1000 else n_rounds//2)
            for what,f in (("prediction", predict), ("training step", step)):
                inner = 20 if hidden == 16 and n < 1000 else 1
                ways = {name: (lambda m=m: [f(m, x) for _ in range(inner)]) for name,m in (("loop over days", loop), ("days together", together))}
                out[f"hidden {hidden}, batch {n}, {what}"] = table(f"hidden {hidden}, batch {n}, {what}" + (f" ({inner} times)" if inner > 1 else ""), rounds(ways, k))
    return out


def epochs(n_rounds, rows, batch=64):
    from torchvision.models import resnet101
    from transformers import BertConfig, BertModel
    torch.manual_seed(0)
    vision = resnet101()
    vision.fc = torch.nn.Identity()
    bert = BertModel(BertConfig(vocab_size=119_547)).eval()
    vision.eval()
    pictures,tokens = torch.rand(rows, 3, 224, 224),torch.randint(1000, 100_000, (rows, 5, 64))
    rest = dict(numbers=torch.randn(rows, 6), category=torch.randint(16, (rows,)), language=torch.randint(7, (rows,)), target=torch.rand(rows, 30)*10)
    def encode(i):
        with torch.inference_mode(): image,text = vision(pictures[i]),bert(tokens[i].flatten(0, 1)).pooler_output.view(len(i), 5, -1)
        return image.clone(),text.clone()
    parts = torch.arange(rows).split(batch)
    found = [encode(i) for i in parts]
    data = ArrayDataset(image=torch.cat([a for a,_ in found]).half().numpy(), text=torch.cat([b for _,b in found]).half().numpy(), **{k: v.numpy() for k,v in rest.items()})
    net = SmtpdNet(NetConfig(flags=False)).train()
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-3)
    def train(image, text, i, part):
        optimiser.zero_grad()
        net(image, text, **part)["loss"].backward()
        optimiser.step()
    def cached():
        for i in parts:
            b = data.__getitems__(i.numpy())
            train(b.pop("image"), b.pop("text"), i, b)
    def recomputed():
        for i in parts: train(*encode(i), i, {k: v[i] for k,v in rest.items()})
    out = table(f"{rows} rows in batches of {batch}", rounds({"recomputed, with training": recomputed, "cached, with training": cached}, n_rounds))
    return dict(rows=rows, batch=batch, whole_epoch=out)


def published_fold(ids, fold=0):
    "As both published codes do it: membership in a list, row by row"
    deck = list(range(len(ids)))
    random.Random(23).shuffle(deck)
    m = len(ids)//5
    test = deck[fold*m:(fold+1)*m]
    return [i for i in deck if i not in test], test


def folds(n_rounds):
    big = pd.DataFrame({"video_id": [f"v{i:06d}" for i in range(282_000)]})
    out = {"protocol_split, one fold of 282,000": table("282,000 rows", rounds({"protocol_split, one fold": lambda: protocol_split("smtpd", big, fold=0)}, n_rounds))}
    out["protocol_split, all five folds"] = table("282,000 rows", rounds({"protocol_split, five folds": lambda: [protocol_split("smtpd", big, fold=f) for f in range(5)]}, 2))
    for n in (2000, 4000, 8000):
        small = big[:n]
        assert sorted(published_fold(range(n))[1]) == sorted(int(v[1:]) for v in protocol_split("smtpd", small).ids["test"])
        out[f"{n} rows"] = table(f"{n} rows, one fold", rounds({"list membership": lambda: published_fold(range(n)), "protocol_split": lambda: protocol_split("smtpd", small)}, 2))
    return out


def resident(): return int(next(l.split()[1] for l in open("/proc/self/status") if l.startswith("VmRSS")))/1024


def memory(n=282_000):
    plan = {"picture, 2048 float16": 4096, "texts, 5 x 768 float16": 7680, "numbers, 6 float32": 24, "category and language, int64": 16, "target, 30 float32": 120, "anchor, 30 float32": 120}
    before = resident()
    arrays = dict(image=np.empty((n, 2048), np.float16), text=np.empty((n, 5, 768), np.float16), numbers=np.zeros((n, 6), np.float32)+1, category=np.ones(n, np.int64), language=np.ones(n, np.int64), target=np.ones((n, 30), np.float32), anchor=np.ones((n, 30), np.float32))
    for i in range(0, n, 4096): arrays["image"][i:i+4096],arrays["text"][i:i+4096] = 1,1
    data = ArrayDataset(**arrays)
    held = resident()-before
    rng = np.random.default_rng(0)
    for _ in range(50): data.__getitems__(rng.integers(0, n, 64))
    batches = resident()-before-held
    net = sum(p.numel() for p in SmtpdNet(NetConfig(flags=False)).parameters())
    out = dict(rows=n, bytes_a_row=plan, planned_mb=sum(plan.values())*n/2**20, measured_mb=held, after_50_batches_mb=batches, network_with_gradient_and_adam_mb=net*16/2**20)
    print("\nmemory of 282,000 rows: " + ", ".join(f"{k} {v:,.0f}" for k,v in out.items() if isinstance(v, float)), flush=True)
    return out


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rounds", type=int, default=5, help="repetitions of each measurement")
    p.add_argument("--rows", type=int, default=64, help="rows of part 2, in batches of 64")
    p.add_argument("--out", default="bench/results/smtpd.json", help="where the JSON goes")
    a = p.parse_args()
    torch.set_num_threads(1)
    about = dict(python=platform.python_version(), torch=version("torch"), numpy=version("numpy"), machine=platform.machine(), threads=1)
    result = dict(about=about, heads=heads(a.rounds), folds=folds(a.rounds), epochs=epochs(1, a.rows), memory=memory())
    write_json(a.out, result)
