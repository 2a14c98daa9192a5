"""Peak memory of a process against its plan: what the memory parts of bench/vlm.py and bench/videollama2.py share"""
import ctypes
import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import torch

# malloc returns freed memory to the system, so that the peak is that of the work
MALLOC = {"MALLOC_TRIM_THRESHOLD_": "0", "MALLOC_MMAP_THRESHOLD_": "262144", "MALLOC_ARENA_MAX": "2"}


def process_bytes(name):
    "A row of /proc/self/status, such as `VmHWM` (peak) or `VmRSS` (now), in bytes"
    return 1024*int(next(o.split()[1] for o in open("/proc/self/status") if o.startswith(name)))


def reset_peak():
    "Return freed memory to the system, set the peak back, and return the resident memory in bytes"
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return process_bytes("VmRSS")


def train_step(net, opt, batch, half, device="cpu"):
    "A training step as the engine makes it: autocast, backward, clipping, optimiser, gradients set to None"
    with torch.autocast(device, torch.bfloat16, enabled=half): loss = net(**batch)["loss"]
    loss.backward()
    torch.nn.utils.clip_grad_norm_([p for p in net.parameters() if p.requires_grad], 1.)
    opt.step()
    opt.zero_grad(set_to_none=True)


def compare(plan, train, loading, weights, work):
    "Measured bytes of loading, weights and the work against a `MemoryPlan`, and the planned point of largest memory"
    sums = {k: sum(o.values()) for k,o in plan.points.items()}
    training = [k for k in sums if k not in ("loading", "predicting")]
    busiest = max(training, key=sums.get) if train else "predicting"
    planned = dict(loading=sums["loading"], weights=plan.points["step"]["weights"], work=sums[busiest])
    measured = dict(loading=loading, weights=weights, work=work)
    rows = {k: dict(measured=m, planned=planned[k], planned_over_measured=planned[k]/m) for k,m in measured.items()}
    return rows | dict(at=busiest, points=plan.points)


def run_case(script, case):
    "Run one case of a script in a new process; its JSON"
    env = os.environ | MALLOC | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    command = [sys.executable, script, "--case", json.dumps(case)]
    r = subprocess.run(command, capture_output=True, text=True, env=env)
    if r.returncode: raise SystemExit(r.stderr[-3000:])
    return json.loads(r.stdout.splitlines()[-1])


def run_cases(script, cases, only, done, write):
    "Run the cases that are not in `done`, each in a new process, and store the results after each"
    def gb(o): return f"measured {o['measured']/1e9:6.2f} GB planned {o['planned']/1e9:6.2f} GB"
    out = dict(done)
    for name,case in cases.items():
        if only and only not in name or name in out: continue
        o = out[name] = run_case(script, case)
        rate = f", {o['share_of_rate']:.2f} of the rate" if "share_of_rate" in o else ""
        print(f"{name:32}{o['parameters']/1e6:6.0f} M  weights {gb(o['weights'])}   peak {gb(o['work'])}"
              f"  ratio {o['work']['planned_over_measured']:.3f} ({o['at']})"
              f"   loading {o['loading']['planned_over_measured']:.3f}   {o['seconds']:5.1f} s{rate}", flush=True)
        write("memory", out)
    return out
