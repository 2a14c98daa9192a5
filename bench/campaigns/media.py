"""Damage small videos, sounds and pictures by seeded mutations and count what the readers of popnb make of them

    python bench/campaigns/media.py --rounds 20000 --out bench/results/campaign_media.json
    python bench/campaigns/media.py --case 1234 --keep case        # one mutation again, its file as case.<suffix>
    python bench/campaigns/media.py --recheck RESULT --out RESULT  # the failed ones again, after a mend

Four numbers must be 0: `hang` (no answer within the limit), `crash` (the process died), `other` (an exception that is no
`MediaError`), and `silent` (the result differs from that of the intact file and is called ok, although the decoder
complained about the same bytes). The complaints are counted here, from FFmpeg's own lines, flags and errors, by one
decoder that reads every packet; the readers of popnb take no part in that. For frames and previews only
complaints about the packets count that they depend on; for a track that is not found, those about opening the file.
`unseen` counts the changes that no decoder noticed.
"""
import argparse
import json
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

import numpy as np

N,SIDE,RATE,SECONDS = 12,64,16000,1.2   # frames of a clip, its side in pixels; sample rate and length of the sound


# --- sources

def _pictures():
    "Frames `(N, SIDE, SIDE, 3)` with edges, gradients and grain that move"
    y,x = np.mgrid[:SIDE, :SIDE]/SIDE
    rng,out = np.random.default_rng(0),[]
    for i in range(N):
        a = np.stack([np.sin(9*x + i/3 + c) + np.cos(7*y*(c+1) - i/4) for c in range(3)], -1)*50 + 128
        a[8+2*i:24+2*i, 10:30] = (250, 20*i, 30)
        out.append((a + rng.normal(0, 6, a.shape)).clip(0, 255).astype(np.uint8))
    return np.stack(out)

def _sound(channels=1):
    "Samples `(channels, n)` of tones that rise, in [-1, 1]"
    t = np.arange(int(SECONDS*RATE))/RATE
    x = .4*np.sin(2*np.pi*(300 + 200*t)*t) + .2*np.sin(2*np.pi*1500*t)*(t % .2 < .1)
    return np.stack([x*(1 - .2*c) for c in range(channels)]).astype(np.float32)

def _write_av(path, codec=None, sound=None, pix_fmt="yuv420p", options=None, rate=RATE, **container):
    "Write a clip, a sound, or both, packets in the order of their times"
    import av
    with av.open(str(path), "w", options=container) as box:
        streams = []
        if codec:
            v = box.add_stream(codec, rate=10, options=options or {})
            v.width,v.height,v.pix_fmt = SIDE,SIDE,pix_fmt
            streams.append((v, [av.VideoFrame.from_ndarray(a, format="rgb24") for a in _pictures()]))
        if sound:
            s,x = box.add_stream(sound, rate=rate, layout="mono"),_sound()
            f = av.AudioFrame.from_ndarray((x*32767).astype(np.int16), "s16", "mono")
            f.sample_rate = RATE
            r = av.AudioResampler(s.codec_context.format.name if s.codec_context.format else "s16", "mono", rate, frame_size=s.codec_context.frame_size or 1024)
            streams.append((s, [*r.resample(f), *r.resample(None)]))
        packets = []
        for s,frames in streams:
            for f in frames:
                if s.type == "video": f.pts = None
                packets += s.encode(f)
            packets += s.encode()
        for p in sorted(packets, key=lambda p: float((p.dts or 0)*p.time_base)): box.mux(p)

def _write_picture(path, **options):
    from PIL import Image
    Image.fromarray(_pictures()[3]).save(path, **options)

X264 = dict(g="6", bf="2", preset="veryfast")
X265 = {"preset": "ultrafast", "x265-params": "log-level=none:keyint=6:bframes=2:pools=1:frame-threads=1"}
SOURCES = {   # name -> (suffix, kind, function that writes the file)
    "mp4 h264 aac": ("mp4", "video", lambda p: _write_av(p, "libx264", "aac", options=X264)),
    "mp4 hevc aac": ("mp4", "video", lambda p: _write_av(p, "libx265", "aac", options=X265)),
    "mp4 h264, one key frame": ("mp4", "video", lambda p: _write_av(p, "libx264", options=X264 | dict(g="99"), movflags="faststart")),
    "webm vp9 opus": ("webm", "video", lambda p: _write_av(p, "libvpx-vp9", "libopus", options=dict(deadline="realtime"), rate=48000)),
    "mkv h264 flac": ("mkv", "video", lambda p: _write_av(p, "libx264", "flac", options=X264)),
    "mov mjpeg pcm": ("mov", "video", lambda p: _write_av(p, "mjpeg", "pcm_s16le", pix_fmt="yuvj420p")),
    "avi mpeg4 mp3": ("avi", "video", lambda p: _write_av(p, "mpeg4", "libmp3lame")),
    "gif": ("gif", "video", lambda p: _write_av(p, "gif", pix_fmt="rgb8")),
    "wav": ("wav", "sound", lambda p: _write_av(p, None, "pcm_s16le")),
    "mp3": ("mp3", "sound", lambda p: _write_av(p, None, "libmp3lame")),
    "opus": ("opus", "sound", lambda p: _write_av(p, None, "libopus", rate=48000)),
    "m4a aac": ("m4a", "sound", lambda p: _write_av(p, None, "aac")),
    "flac": ("flac", "sound", lambda p: _write_av(p, None, "flac")),
    "jpeg": ("jpg", "picture", lambda p: _write_picture(p, quality=85)),
    "jpeg progressive": ("jpg", "picture", lambda p: _write_picture(p, quality=85, progressive=True)),
    "png": ("png", "picture", lambda p: _write_picture(p)),
    "webp": ("webp", "picture", lambda p: _write_picture(p, quality=80)),
    "webp lossless": ("webp", "picture", lambda p: _write_picture(p, lossless=True)),
    "avif": ("avif", "picture", lambda p: _write_picture(p, quality=70)),
    "gif picture": ("gif", "picture", lambda p: _write_picture(p)),
}

def make_sources(
    folder, # Folder to write into
) -> dict: # Name -> (path, kind)
    "Write the intact files"
    out = {}
    for i,(name,(suffix,kind,write)) in enumerate(SOURCES.items()):
        path = Path(folder)/f"source{i}.{suffix}"
        write(path)
        out[name] = path,kind
    return out


# --- mutations

def _bits(b, rng):
    for i in rng.integers(0, len(b)*8, int(rng.choice([1, 1, 2, 4, 16, 64]))): b[i//8] ^= 1 << i % 8

def _noise(b, rng):
    n = int(rng.integers(1, 64))
    i = int(rng.integers(0, max(len(b) - n, 1)))
    b[i:i+n] = rng.integers(0, 256, len(b[i:i+n]), np.uint8).tobytes()

def _truncate(b, rng): del b[int(rng.integers(1, len(b))):]

def _zeros(b, rng):
    n = int(rng.integers(1, max(len(b)//4, 2)))
    i = int(rng.integers(0, len(b)))
    b[i:i+n] = bytes(len(b[i:i+n]))

def _blocks(b, rng):
    "Swap two blocks, or repeat, remove or insert one"
    n = min(int(rng.integers(4, 512)), len(b)//3)
    i,j = sorted(int(o) for o in rng.integers(0, len(b) - n, 2))
    how = rng.integers(4)
    if how == 0 and j >= i + n: b[i:i+n],b[j:j+n] = b[j:j+n],b[i:i+n]
    elif how == 1: b[i:i] = b[i:i+n]
    elif how == 2: del b[i:i+n]
    else: b[i:i] = rng.integers(0, 256, n, np.uint8).tobytes()

def _header(b, rng):
    "Change bytes near the start or the end, where most formats keep their tables"
    near = min(600, len(b))
    for _ in range(int(rng.choice([1, 2, 6]))):
        i = int(rng.integers(0, near))
        b[i if rng.random() < .6 else len(b) - 1 - i] = int(rng.integers(0, 256))

def _field(b, rng):
    "Put an extreme number where a size, a count or a time may stand"
    size = int(rng.choice([1, 2, 4, 8]))
    i = int(rng.integers(0, max(min(len(b), 1200) - size, 1)))
    if rng.random() < .5: i = max(len(b) - size - i, 0)
    value = int(rng.choice([0, 1, 2**(8*size-1) - 1, 2**(8*size-1), 2**(8*size) - 1, 255][:6] if size < 8 else [0, 1, 2**31, 2**40]))
    b[i:i+size] = value.to_bytes(size, rng.choice(["big", "little"]))

MUTATIONS = (_bits, _bits, _noise, _truncate, _zeros, _blocks, _header, _field)

def mutate(
    data:bytes, # Intact file
    seed:int, # Seed of the campaign
    i:int, # Number of the mutation
) -> tuple: # Name of the mutation and the damaged bytes, which differ from the intact ones
    "Damage a file"
    rng = np.random.default_rng([seed, i])
    for _ in range(20):
        f,b = MUTATIONS[rng.integers(len(MUTATIONS))],bytearray(data)
        f(b, rng)
        if bytes(b) != data and b: break
    return f.__name__[1:],bytes(b)


# --- what the decoder says, without popnb

def complaints(path, kind, only=None):
    "Complaints of the decoder about every packet, or about `only` these of the video: `(picture, sound)`, lists of text"
    import av
    said,present = {"video": [], "audio": []},None
    if kind == "picture" and Path(path).suffix != ".jpg": return [],[]
    level,skip = av.logging.get_level(),av.logging.get_skip_repeated()
    av.logging.set_level(av.logging.ERROR)
    av.logging.set_skip_repeated(False)
    try:
        if kind == "picture":
            with av.logging.Capture() as log:
                cc = av.CodecContext.create("mjpeg", "r")
                cc.thread_count = 1
                try: got = cc.decode(av.Packet(Path(path).read_bytes())) + cc.decode(None)
                except Exception: got = []      # maybe not supported: it counts where it decodes
                return [o[2].strip() for o in log if got and o[0] <= av.logging.ERROR],[]
        with av.logging.Capture() as log, av.open(f"file:{path}", metadata_errors="replace") as box:
            for s in box.streams:
                if s.codec_context is not None: s.codec_context.thread_count = 1
            kind_of = {s.codec_context.name: s.type for s in box.streams if s.codec_context is not None}
            def take(stream):
                "Lines go to the kind of their decoder, those of the container to the kind that is read, or to both"
                for o in log:
                    if o[0] > av.logging.ERROR: continue
                    for k in said if stream is None else [stream]:
                        if kind_of.get(o[1], k) == k: said[k].append(o[2].strip())
                log.clear()
            take(None)
            present = {s.type for s in box.streams}
            number = Counter()
            for p in box.demux([s for s in box.streams if s.type in said and s.codec_context is not None]):
                if p.stream.type not in said: continue      # a damaged track may change its type
                k,i = p.stream.type,number[p.stream.type]
                number[k] += p.size > 0
                if only is not None and p.size and (k != "video" or i not in only): continue
                if only is not None and p.is_keyframe and i - 1 not in only: p.stream.codec_context.flush_buffers()
                if p.is_corrupt: said[k].append("corrupt packet")
                try: got = p.decode()
                except Exception as e: said[k].append(str(e))
                else: said[k] += ["corrupt frame"]*sum(getattr(f, "is_corrupt", False) for f in got)
                take(k)
    except Exception as e:
        for k in said if present is None else present & {*said}: said[k].append(str(e))
    finally:
        av.logging.set_level(level)
        av.logging.set_skip_repeated(skip)
    return said["video"],said["audio"]


# --- what popnb says

def _outcome(f):
    "`(status, value)` of a reader: `ok`, `partial`, the kind of a `MediaError`, or `other: …`"
    from popnb.core import MediaError
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try: status,value = f()
        except MediaError as e: return e.kind,None
        except Exception as e:
            at = traceback.extract_tb(e.__traceback__)[-1]
            return f"other: {type(e).__name__}: {str(e)[:120]} in {Path(at.filename).name}:{at.lineno}",None
    return ("partial" if status == "ok" and warned else status), value

def _frames(path, n):
    from popnb.media.video import frames
    got = frames(path, n, deadline=20, threads=1)
    return got.status,got.pixels

def _needed(path, n):
    "Packets that a sample of frames depends on, from the last key frame before each; without `n` those of a preview"
    from popnb.media.probe import open_clip
    from popnb.media.frame_sampling import pick_frames
    with open_clip(path, 20) as clip: i,fps = clip.index,clip.info().fps
    if n is None: return set(np.flatnonzero(~i.disposable).tolist())
    need,wanted = set(),[int(p) for p in i.order[pick_frames("endpoints", len(i), fps, n)]]
    for p in wanted:
        keys = [int(k) for k in np.flatnonzero(i.keyframe) if k <= p]
        need |= {q for q in range(keys[-1] if keys else 0, p + 1) if q in wanted or not i.disposable[q]}
    return need

def _preview(path):
    from popnb.media.preview import preview
    got = preview(path, deadline=20)
    return got.status,got.pixels

def _audio(path):
    from popnb.media.audio import Audio
    a = Audio(path, 20)
    x = a.samples(RATE)
    return a.status,x

def _check(path):
    from popnb.media.integrity import _check_here
    v = _check_here(path, True, 20)
    return v.status,v.audio

def _picture(path):
    from popnb.media.image import read_image
    return "ok",read_image(path)

def _judge(path):
    "The judge of downloads, whose refusals are errors of another family"
    from popnb.core import MediaError
    from popnb.media.download import _judge_job
    got = _judge_job(path)
    if got["kind"]: raise MediaError("broken", path, "", got["detail"])
    return "partial" if got["detail"] else "ok",(got["width"], got["height"])

READERS = {
    "video": dict(frames=lambda p: _frames(p, N), some=lambda p: _frames(p, 4), preview=_preview, audio=_audio, check=_check),
    "sound": dict(audio=_audio, check=_check),
    "picture": dict(image=_picture, judge=_judge, check=_check),
}
_INTACT = {}   # source -> results of the readers, in this process

def _same(a, b):
    if a is None or b is None or np.shape(a) != np.shape(b): return False
    return bool(np.allclose(a, b, atol=1e-4))

def job(path, source, kind):
    "Read a damaged file with every reader, in a worker: outcome, whether the value changed, and the decoder's complaints"
    if source not in _INTACT: _INTACT[source] = {k: _outcome(lambda: f(source)) for k,f in READERS[kind].items()}
    got,start = {},time.monotonic()
    for k,f in READERS[kind].items():
        status,value = _outcome(lambda: f(path))
        changed = k != "check" and value is not None and not _same(value, _INTACT[source][k][1])
        got[k] = dict(status=status, changed=changed, audio=value if k == "check" else None)
        if k == "audio": got[k]["lost"] = status == "no-audio" and _INTACT[source][k][0] != "no-audio"
    picture,sound = complaints(path, kind)
    said = dict.fromkeys(READERS[kind], picture) | dict(audio=sound)
    for k,n in dict(frames=N, some=4, preview=None).items():
        if picture and k in got and got[k]["status"] == "ok": said[k] = complaints(path, kind, _needed(path, n))[0]
    return dict(got=got, said={k: v[:3] for k,v in said.items()}, seconds=time.monotonic() - start)


# --- counting

def _wrong(answer, kind):
    "Yield `(what, reader, text)` for everything of a case that must not be"
    got = answer["got"]
    for k,o in got.items():
        if o["status"].startswith("other"): yield "other",k,o["status"]
        if k == "check" or not (o["changed"] and o["status"] == "ok" or o.get("lost")): continue
        said = answer["said"][k]
        if said: yield "silent",k,said[0]
        else: yield "unseen",k,""
    if kind == "picture":
        if got["image"]["status"] == "ok" != got["judge"]["status"]: yield "silent","image","the judge of downloads refuses it"
        if got["judge"]["status"] == "ok" != got["image"]["status"]: yield "silent","judge","read_image refuses it"

def run(
    rounds:int=20000, # Mutations
    seconds:float=0., # Stop after so many seconds; 0: when the rounds are over
    seed:int=0, # Seed of all mutations
    only:str="", # Only sources whose name holds this text
    cases:list|None=None, # Only these mutations
    keep:str="", # Keep its file under this name
    out:str|None=None, # Write the result here, also after every thousand mutations
) -> dict: # Counts, and the first cases of each kind
    "Run the campaign in one worker process"
    from popnb.workers import Lost, WorkerPool
    pool,counts,by,examples,slowest,start = WorkerPool("media:job"),Counter(),{},[],0.,time.monotonic()
    def result():
        return dict(seed=seed, seconds=round(time.monotonic() - start), slowest=round(slowest, 2),
                    **{k: counts[k] for k in ("mutations", "hang", "crash", "other", "silent", "unseen")},
                    sources={k: dict(sorted(v.items())) for k,v in by.items()}, examples=examples[:200])
    with tempfile.TemporaryDirectory() as d:
        sources = {k: v for k,v in make_sources(d).items() if only in k}
        names = list(sources)
        for i in range(rounds) if cases is None else cases:
            if seconds and time.monotonic() - start > seconds: break
            name = names[i % len(names)]
            source,kind = sources[name]
            how,data = mutate(source.read_bytes(), seed, i)
            path = Path(d)/f"case{source.suffix}"
            path.write_bytes(data)
            if keep: Path(keep + source.suffix).write_bytes(data)
            got = pool.ask(dict(path=str(path), source=str(source), kind=kind), 30.)
            counts["mutations"] += 1
            by.setdefault(name, Counter())["mutations"] += 1
            if isinstance(got, Lost): found = [("hang" if got.late else "crash", "worker", got.how)]
            else:
                found,slowest = list(_wrong(got[0], kind)),max(slowest, got[0]["seconds"])
                for k,o in got[0]["got"].items(): by[name][f"{k} {o['status'].split(':')[0]}"] += 1
            for what in {o[0] for o in found}: counts[what] += 1; by[name][what] += 1
            examples += [dict(case=i, source=name, mutation=how, what=w, reader=k, text=s) for w,k,s in found if w != "unseen"]
            if keep: print(json.dumps(got[0] if not isinstance(got, Lost) else str(got), indent=1))
            if i % 1000 == 999:
                print(i + 1, dict(counts), file=sys.stderr, flush=True)
                if out: write(out, result())
        pool.end()
    return result()

def write(path, result): Path(path).write_text(json.dumps(result, indent=1) + "\n")

def recheck(
    path, # Result of a campaign
) -> dict: # The same, with the failed cases run again by the present code
    "Run the cases again that failed in a campaign, after a mend"
    old = json.loads(Path(path).read_text())
    cases = sorted({o["case"] for o in old["examples"]})
    new = run(seed=old["seed"], cases=cases)
    for k in ("hang", "crash", "other", "silent"):
        if old[k] > len({o["case"] for o in old["examples"] if o["what"] == k}): raise SystemExit("not all failed cases were kept: run all again")
    return old | {k: new[k] for k in ("hang", "crash", "other", "silent", "examples")} | {"rechecked": len(cases)}

def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--rounds", type=int, default=20000)
    p.add_argument("--seconds", type=float, default=0.)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--only", default="")
    p.add_argument("--case", type=int)
    p.add_argument("--keep", default="")
    p.add_argument("--out")
    p.add_argument("--recheck", help="result of which the failed cases are run again")
    a = p.parse_args()
    cases = None if a.case is None else [a.case]
    got = recheck(a.recheck) if a.recheck else run(a.rounds, a.seconds, a.seed, a.only, cases, a.keep, a.out)
    if a.out: write(a.out, got)
    print("{mutations} mutations in {seconds} s: {hang} hangs, {crash} crashes, {other} exceptions of another kind, "
          "{silent} changed silently where the decoder complained; {unseen} that no decoder noticed".format(**got))
    sys.exit(any(got[k] for k in ("hang", "crash", "other", "silent")))

if __name__ == "__main__": main()
