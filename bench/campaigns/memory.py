"""Does the memory of a process grow with the number of files and predictions?

    python bench/campaigns/memory.py [--rounds 10000] [--predictions 5000] [--seconds S] [--out FILE]

Clips: decode, signals and cache as in `popnb features`, all in one process that is never replaced (its workers are); every
tenth file is damaged. Predictions: `predict_videos` on one loaded tabular run, one video a call, every tenth with a file.
Resident memory is read at 60 points; the first fifth is warm-up, the slope is that of a straight line through the rest."""
import argparse, json, os, sys, tempfile, time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ["POPNB_PROGRESS"] = "0"
import numpy as np                                                          # noqa: E402
from popnb.features.signals import measure                                  # noqa: E402
from popnb.features.signal_table import _to_record                          # noqa: E402
from popnb.features.store import Store                                      # noqa: E402
from popnb.simulation.clips import ClipSpec, write_clip                     # noqa: E402

MOST = 20e6      # bytes by which all rounds after the warm-up may grow, from the slope


def resident():
    "Resident memory of this process, bytes"
    return 1024*int(next(o.split()[1] for o in open("/proc/self/status") if o.startswith("VmRSS")))


def course(what, work, rounds, until):
    "Call `work` with 0, 1, …; memory at 60 points, and the slope after the warm-up"
    every,points,begun,k = max(1, rounds//60),[],time.monotonic(),0
    for k in range(rounds):
        if time.monotonic() > until: break
        work(k)
        if k % every == every-1: points.append((k+1, resident()))
    n,rss = np.array(points[len(points)//5:]).T.astype(float)
    slope = float(np.polyfit(n, rss, 1)[0])
    growth = slope*(n[-1]-n[0])
    out = dict(rounds=k+1, seconds=round(time.monotonic()-begun), start_mb=round(points[0][1]/1e6, 1),
               after_warm_up_mb=round(float(rss[0])/1e6, 1), end_mb=round(float(rss[-1])/1e6, 1),
               most_mb=round(float(rss.max())/1e6, 1),
               bytes_a_round=round(slope, 1), growth_mb=round(float(growth)/1e6, 2), flat=bool(growth < MOST))
    print(f"{what}: {out}", flush=True)
    return out


def clips(folder, n=40):
    "Different tiny clips, every tenth damaged"
    out = []
    for k in range(n):
        path = folder/f"{k}.mp4"
        spec = ClipSpec(k, 12, fps=12, size=(48+4*(k%4), 48), brightness=.2+.6*k/n, loudness=None if k%7 == 3 else -24.)
        out.append(str(write_clip(spec, path)))
        if k % 10 == 9:
            data = bytearray(path.read_bytes())
            data[len(data)//2:len(data)//2+60] = os.urandom(60)
            path.write_bytes(data)
    return out


def of_clips(folder, rounds, until):
    "Decode, measure and cache, as a worker of `popnb features` and its parent do"
    files = clips(folder)
    with Store(folder/"store") as store:
        def work(k):
            m = measure(files[k % len(files)])
            store.put_many({f"{k:08d}": _to_record(m, "video")})
        return course("clips", work, rounds, until)


def of_predictions(folder, rounds, until):
    "Predict with a loaded run, one video a call"
    import popnb
    from popnb.runs.predict import predict_videos
    from popnb.simulation.dataset import simulate
    table = simulate(200, media=False).table
    popnb.train("tabular", table, out=folder/"run", preset="tiny")
    model,files = popnb.load(folder/"run"),clips(folder, 10)
    def work(k):
        row = table.iloc[[k % len(table)]].reset_index(drop=True)
        if k % 10 == 0: row = row.assign(video_path=files[k//10 % len(files)])
        predict_videos(model, row, store=folder/"store", workers=1)
    return course("predictions", work, rounds, until)


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--rounds", type=int, default=10_000, help="number of clips")
    p.add_argument("--predictions", type=int, default=5000)
    p.add_argument("--seconds", type=float, default=float("inf"), help="end each part after so many seconds")
    p.add_argument("--seed", type=int, default=0, help="unused: every round is the same")
    p.add_argument("--out", help="JSON file of the results")
    o = p.parse_args()
    out = {}
    for name,f,n in (("clips", of_clips, o.rounds), ("predictions", of_predictions, o.predictions)):
        if not n: continue
        with tempfile.TemporaryDirectory(prefix="memory-") as d: out[name] = f(Path(d), n, time.monotonic()+o.seconds)
    if o.out: Path(o.out).write_text(json.dumps(out, indent=1) + "\n")
    print("; ".join(f"{v['rounds']:,} {k}: {v['after_warm_up_mb']} MB after the warm-up, {v['end_mb']} MB at the end, "
                    f"{v['bytes_a_round']} bytes a round" for k,v in out.items()))
    return 0 if all(v["flat"] for v in out.values()) else 1


if __name__ == "__main__": sys.exit(main())
