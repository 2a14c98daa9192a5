"""Damaged tables: every row that was not touched is read as it was, or the file is refused with one sentence.

    python bench/campaigns/tables.py [--rounds 500] [--seed 0] [--seconds S] [--out FILE]

A table of 60 videos is written as CSV, JSON lines, xlsx and Parquet and damaged: cut, bits flipped, bytes zeroed, inserted,
removed or repeated, a quote, a delimiter, a NUL or a carriage return put in, lines repeated, another encoding, packed with
gzip and damaged then. CSV and Parquet are read by `read_table`, the others by `read_rows`, in a child process. What counts as
a failure: a signal, an exception of another kind, a message of more than one sentence, a row beyond the touched bytes that is
absent or different. (Text has no checksum: a changed letter within the touched row cannot be noticed.)"""
import argparse, gzip, json, shutil, sys, tempfile, time, traceback, zipfile
from collections import Counter
from pathlib import Path
from xml.sax.saxutils import escape
import numpy as np
import pandas as pd
from forked import in_child
from popnb.core import PopnbError
from popnb.data.files import read_rows
from popnb.data.table import read_table, write_table
from popnb.simulation.dataset import simulate

KINDS = ("cut", "bit", "bits", "zeroed", "inserted", "removed", "repeated", "quote", "delimiter", "nul", "return", "line twice",
    "encoding", "gzip", "gzip bit")


def workbook(frame, path):
    "A minimal xlsx file of texts"
    ns = "http://schemas.openxmlformats.org"
    cell = lambda v: f'<c t="inlineStr"><is><t xml:space="preserve">{escape(v)}</t></is></c>'
    rows = [list(frame.columns), *frame.values.tolist()]
    body = "".join(f"<row>{''.join(map(cell, r))}</row>" for r in rows)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as z:
        z.writestr("xl/workbook.xml", f'<workbook xmlns="{ns}/spreadsheetml/2006/main" xmlns:r="{ns}/officeDocument/2006/'
            'relationships"><sheets><sheet name="a" sheetId="1" r:id="r1"/></sheets></workbook>')
        z.writestr("xl/_rels/workbook.xml.rels", f'<Relationships xmlns="{ns}/package/2006/relationships"><Relationship '
            'Id="r1" Target="worksheets/sheet1.xml"/></Relationships>')
        z.writestr("xl/worksheets/sheet1.xml", f'<worksheet xmlns="{ns}/spreadsheetml/2006/main"><sheetData>{body}'
            "</sheetData></worksheet>")


def files(folder):
    "Format -> file"
    table = simulate(60, media=False, seed=4).table
    table["title"] = [f"{'' if pd.isna(t) else t}, “no {i}” 🎬" for i,t in enumerate(table["title"])]
    write_table(table, folder/"t.csv")
    write_table(table, folder/"t.parquet")
    plain = table[["video_id", "title", "author", "views"]].astype(str)
    (folder/"t.jsonl").write_text("".join(json.dumps(r, ensure_ascii=False)+"\n" for r in plain.to_dict("records")))
    workbook(plain, folder/"t.xlsx")
    return {k: folder/f"t.{k}" for k in ("csv", "jsonl", "xlsx", "parquet")}


def read(path):
    "Rows by id, each as a text, and the ids of rows that are reported as dropped"
    if path.name.startswith("t.csv") or path.name.startswith("t.parquet"): frame,lost = read_table(path),[]
    else: frame,_,lost = read_rows(path)
    if "video_id" not in frame: return None,lost
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    return {str(r["video_id"]): repr({k: v for k,v in r.items() if v is not None}) for r in rows},[str(o) for o in lost]


def damage(data, kind, rng):
    "Changed bytes, and the first and last changed position in the old ones"
    n = len(data)
    a = int(rng.integers(n))
    b = min(n, a + int(rng.integers(1, 200)))
    out = bytearray(data)
    if kind == "cut": return data[:a],(a, n)
    if kind == "bit":
        out[a] ^= 1 << rng.integers(8)
        return bytes(out),(a, a+1)
    if kind == "bits":
        at = [int(o) for o in rng.integers(n, size=rng.integers(2, 30))]
        for o in at: out[o] ^= 1 << rng.integers(8)
        return bytes(out),(min(at), max(at)+1)
    if kind == "zeroed": out[a:b] = bytes(b-a)
    elif kind == "inserted": out[a:a] = rng.bytes(b-a)
    elif kind == "removed": del out[a:b]
    elif kind == "repeated": out[a:a] = data[a:b]
    elif kind in ("quote", "delimiter", "nul", "return"):
        out[a:a] = {"quote": b'"', "delimiter": b",", "nul": b"\0", "return": b"\r"}[kind]
        return bytes(out),(a, a+1)
    elif kind == "line twice":
        i = data.rfind(b"\n", 0, a)+1
        j = data.find(b"\n", a)+1 or n
        out[j:j] = data[i:j]
        return bytes(out),(i, j)
    elif kind == "encoding":
        try: return data.decode().encode(str(rng.choice(["utf-16", "cp1252", "utf-8-sig"])), "replace"),(0, n)
        except UnicodeDecodeError: return data,(0, 0)
    elif kind == "gzip": return gzip.compress(data),(0, 0)
    elif kind == "gzip bit":
        packed = bytearray(gzip.compress(data))
        packed[rng.integers(10, len(packed))] ^= 1 << rng.integers(8)
        return bytes(packed),(0, 0)
    return bytes(out),(a, b)


def touched(data, span, whole, text):
    "Ids of the rows whose bytes were changed; of a binary format none, because it has checksums"
    if not text or span[0] >= span[1]: return set()
    lines,at,out = data.split(b"\n"),0,set()
    for line,vid in zip(lines, [None, *whole] if text == "csv" else whole):
        end = at+len(line)+1
        if at <= span[1] and end >= span[0]: out.add(vid)
        at = end
    return out


def judge(path, whole, changed):
    "Outcome and text for one damaged file"
    try: rows,lost = read(path)
    except PopnbError as e:
        t = str(e)
        return ("refused" if "\n" not in t and len(t) < 700 else "long message"),t
    except BaseException as e: return "exception","".join(traceback.format_exception(e)[-3:])
    if rows is None: return ("read" if None in changed else "wrong"),"no column video_id"
    if None in changed: return "read",""                # the header was touched
    bad = [i for i in whole if i not in changed and rows.get(i) != whole[i] and not any(i in o for o in lost)]
    return ("wrong",f"{bad[0]}: {rows.get(bad[0])} instead of {whole[bad[0]]}") if bad else ("read","")


def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    p.add_argument("--rounds", type=int, default=500)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--seconds", type=float, default=float("inf"))
    p.add_argument("--out", type=Path)
    a = p.parse_args(argv)
    work,start,counts,kinds,bad = Path(tempfile.mkdtemp()),time.time(),Counter(),Counter(),[]
    sources = files(work)
    whole = {k: read(f)[0] for k,f in sources.items()}
    for i in range(a.rounds):
        if time.time() - start > a.seconds: break
        rng = np.random.default_rng([a.seed, i])
        form = list(sources)[i % 4]
        kind = KINDS[rng.integers(len(KINDS))]
        data = sources[form].read_bytes()
        new,span = damage(data, kind, rng)
        text = form if form in ("csv", "jsonl") else ""
        (work/"d").mkdir(exist_ok=True)
        path = work/"d"/f"t.{form}"
        path.write_bytes(new)
        reached = touched(data, span, whole[form], text)
        found,why = in_child(lambda: judge(path, whole[form], reached), 30)
        outcome,said = found or (why, "")
        counts[outcome] += 1
        kinds[f"{form} {kind}: {outcome}"] += 1
        if outcome not in ("read", "refused"): bad.append(dict(round=i, format=form, kind=kind, outcome=outcome, text=said[-500:]))
    shutil.rmtree(work)
    result = dict(rounds=sum(counts.values()), seed=a.seed, seconds=round(time.time()-start, 1), outcomes=dict(counts),
        kinds=dict(sorted(kinds.items())), failures=bad)
    if a.out: a.out.write_text(json.dumps(result, indent=1)+"\n")
    for o in bad[:12]: print(o)
    print(f"tables: {result['rounds']} damaged tables, {counts['read']} read, {counts['refused']} refused with one sentence,"
        f" {len(bad)} failures, {result['seconds']} s")
    return 1 if bad else 0


if __name__ == "__main__": sys.exit(main())
