"""Which format should parts of a store have: LMDB, Parquet or Lance? And how long does a merge take?

    python bench/store_formats.py [--parts 10] [--records 10000] [--rounds 3] [--merge 100000] [--dir DIR]
        [--out bench/results/store_formats.json]

1. So many parts of so many records each, of one vector of 2 kB (1,024 numbers of 2 bytes) or 3 kB (768 of 4 bytes), in each
   format; Parquet in row groups of 64, not compressed, sorted by key; Lance with a B-tree index on the key, if `pylance` is
   installed. Written are bytes on disk over those of the vectors, the time of a merge into one sorted set without repeated
   keys, and random reads a second from it, 32 keys at a time (LMDB checks a checksum of every record, the others none).
2. `merge_stores` of as many parts of --merge records of 2 kB, and of a tenth of them: seconds, and peak memory of its
   process, that of the program alone and with the mapped pages of files, which the system takes back when it needs them.
   0 leaves this part out.

With `--records 0` or `--merge 0` the results of an earlier call stay.

The second part needs about 10 GB on the disk of --dir with the defaults.
"""
import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from timing import load, processor, versions
from popnb.core import read_json, write_json
from popnb.features.store import Store
from popnb.features.store_parts import merge_stores

SIZES = {"2 kB": (1024, np.float16), "3 kB": (768, np.float32)}


def key(i): return f"{i*0x9E3779B97F4A7C15 % 2**64:016x}{i:024x}"       # 40 digits, as those of a hash


def vectors(size, part, n, step=1000):
    "Records of a part: lists of keys and of vectors"
    shape,dtype = SIZES[size]
    rng = np.random.default_rng(part)
    for at in range(0, n, step):
        m = min(step, n-at)
        yield [key(part*n+at+i) for i in range(m)],rng.standard_normal((m, shape), np.float32).astype(dtype)


def bytes_of(path): return sum(p.stat().st_blocks*512 for p in Path(path).rglob("*") if p.is_file())


class Lmdb:
    "Parts and merged set are stores"
    def write(self, folder, size, part, n):
        with Store(folder) as s:
            for keys,x in vectors(size, part, n): s.put_many({k: dict(x=v) for k,v in zip(keys, x)})

    def merge(self, parts, into): merge_stores(parts, into)

    def reader(self, folder):
        store = Store(folder)
        return lambda keys: [v["x"] for v in store.get_many(keys)]


class Parquet:
    "A file a part, sorted by key; the reader knows the first key of every row group"
    def rows(self, keys, x):
        values = pa.FixedSizeBinaryArray.from_buffers(pa.binary(x[0].nbytes), len(x), [None, pa.py_buffer(x)])
        return pa.table({"key": keys, "x": values})

    def save(self, table, folder):
        folder.mkdir(parents=True)
        pq.write_table(table.sort_by("key"), folder/"part.parquet", row_group_size=64, compression="none",
            use_dictionary=False, write_statistics=["key"])

    def write(self, folder, size, part, n):
        self.dtype = SIZES[size][1]
        self.save(pa.concat_tables([self.rows(*o) for o in vectors(size, part, n)]), folder)

    def merge(self, parts, into):
        self.save(pa.concat_tables([pq.read_table(p/"part.parquet") for p in parts]), into)

    def reader(self, folder):
        f = pq.ParquetFile(folder/"part.parquet", memory_map=True)
        first = np.array([f.metadata.row_group(i).column(0).statistics.min for i in range(f.num_row_groups)])
        def read(keys):
            groups = np.searchsorted(first, keys, "right") - 1
            t = f.read_row_groups(sorted(set(groups.tolist())), use_threads=False)
            at = {k: i for i,k in enumerate(t["key"].to_pylist())}
            return [np.frombuffer(t["x"][at[k]].as_py(), self.dtype) for k in keys]
        return read


class Lance:
    "A dataset a part"
    def write(self, folder, size, part, n):
        import lance
        self.dtype = SIZES[size][1]
        rows = [pa.table({"key": k, "x": pa.FixedSizeListArray.from_arrays(x.reshape(-1), x.shape[1])})
            for k,x in vectors(size, part, n)]
        lance.write_dataset(pa.concat_tables(rows), folder)

    def merge(self, parts, into):
        import lance
        lance.write_dataset(pa.concat_tables([lance.dataset(p).to_table() for p in parts]).sort_by("key"), into)
        lance.dataset(into).create_scalar_index("key", "BTREE")

    def reader(self, folder):
        import lance
        d = lance.dataset(folder)
        def read(keys):
            wanted = ", ".join(f"'{k}'" for k in keys)
            t = d.to_table(filter=f"key in ({wanted})")
            at = {k: i for i,k in enumerate(t["key"].to_pylist())}
            x = t["x"].combine_chunks()
            x = x.values.to_numpy().reshape(len(t), -1)
            return [x[at[k]] for k in keys]
        return read


def compare(work, size, parts, n, rounds, formats):
    "Size, merge and reads of every format; reads alternate"
    out,readers,raw = {},{},parts*n*np.dtype(SIZES[size][1]).itemsize*SIZES[size][0]
    for name,f in formats.items():
        folders = [work/name/f"{p:02d}" for p in range(parts)]
        start = time.perf_counter()
        for p,folder in enumerate(folders): f.write(folder, size, p, n)
        writing = time.perf_counter() - start
        start = time.perf_counter()
        f.merge(folders, work/name/"merged")
        merging = time.perf_counter() - start
        out[name] = dict(write_s=writing, merge_s=merging, bytes_over_vectors=bytes_of(work/name/"merged")/raw)
        for folder in folders: shutil.rmtree(folder)
        readers[name] = f.reader(work/name/"merged")
    rng,rates = np.random.default_rng(1),{name: [] for name in formats}
    few = [key(int(i)) for i in rng.integers(parts*n, size=32)]
    first = [r(few) for r in readers.values()]
    assert all((a == b).all() for o in first[1:] for a,b in zip(first[0], o))
    for _ in range(rounds):
        for name,read in readers.items():
            keys = [key(int(i)) for i in rng.integers(parts*n, size=32*(400 if name == "LMDB" else 20))]
            start = time.perf_counter()
            for i in range(0, len(keys), 32): read(keys[i:i+32])
            rates[name].append(len(keys)/(time.perf_counter() - start))
    for name,r in rates.items(): out[name] |= dict(reads_per_s=statistics.median(r), reads_each_round=r)
    Store(work/"LMDB"/"merged").close()
    return out


def own_memory():
    "Resident bytes of the program alone, and with those of mapped files"
    rows = dict(o.split(":", 1) for o in Path("/proc/self/status").read_text().splitlines())
    return [1024*int(rows[k].split()[0]) for k in ("RssAnon", "VmRSS")]


def merge_job(parts, into):
    "Merge in this process and print the seconds and the peak of its memory"
    peak,done,before = own_memory(),threading.Event(),own_memory()
    def watch():
        while not done.wait(.02): peak[:] = map(max, peak, own_memory())
    thread = threading.Thread(target=watch)
    thread.start()
    start = time.perf_counter()
    found = merge_stores(parts, into)
    seconds = time.perf_counter() - start
    done.set()
    thread.join()
    print(json.dumps(found | dict(seconds=seconds, before_mb=before[0]/1e6, peak_mb=peak[0]/1e6, peak_with_files_mb=peak[1]/1e6)))


def merge_large(work, parts, n):
    "Write parts, merge them in a process of its own, read the result"
    start = time.perf_counter()
    for p in range(parts): Lmdb().write(work/"parts"/f"{p:02d}", "2 kB", p, n)
    writing,before = time.perf_counter() - start,bytes_of(work/"parts")
    text = subprocess.run([sys.executable, __file__, "--job", work/"parts", work/"whole"], stdout=subprocess.PIPE, text=True,
        check=True, env=os.environ | {"POPNB_PROGRESS": "0"}).stdout
    shutil.rmtree(work/"parts")
    found,store,rng = json.loads(text.splitlines()[-1]),Store(work/"whole"),np.random.default_rng(2)
    assert len(store) == parts*n == found["added"]
    keys = [key(int(i)) for i in rng.integers(parts*n, size=30_000)]
    rates = []
    for _ in range(2):                          # the first round also maps the pages
        start = time.perf_counter()
        lost = sum(v is None for v in store.get_many(keys))
        rates.append(len(keys)/(time.perf_counter() - start))
    assert not lost
    store.close()
    return found | dict(write_parts_s=writing, parts_gb=before/1e9, merged_gb=bytes_of(work/"whole")/1e9, reads_per_s=rates)


def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--parts", type=int, default=10, help="number of parts")
    p.add_argument("--records", type=int, default=10_000, help="records of a part, for the comparison of formats")
    p.add_argument("--rounds", type=int, default=3, help="rounds of reads")
    p.add_argument("--merge", type=int, default=100_000, help="records of a part, for the merge")
    p.add_argument("--dir", type=Path, help="folder on the disk that is measured (default: that of temporary files)")
    p.add_argument("--job", nargs=2, type=Path, help=argparse.SUPPRESS)
    p.add_argument("--out", type=Path, default=Path(__file__).parent/"results"/"store_formats.json", help="JSON file")
    a = p.parse_args(argv)
    if a.job: return merge_job(*a.job)
    formats = {"LMDB": Lmdb(), "Parquet": Parquet()}
    try: formats,lance = formats | {"Lance": Lance()},version("pylance")
    except PackageNotFoundError: formats,lance = {k: v for k,v in formats.items() if k != "Lance"},None
    earlier = read_json(a.out) if a.out.exists() else {}
    settings = dict(parts=a.parts, records=a.records, rounds=a.rounds, merge=a.merge)
    settings = earlier.get("settings", {}) | {k: v for k,v in settings.items() if v}
    result = earlier | dict(machine=dict(processor=processor(), cpus=os.cpu_count(), load=load()), settings=settings,
        versions=versions(("popnb", "lmdb", "pyarrow")) | dict(pylance=lance))
    work = Path(tempfile.mkdtemp(dir=a.dir))
    try:
        for size in SIZES if a.records else ():
            result[size] = compare(work/size.replace(" ", ""), size, a.parts, a.records, a.rounds, formats)
            for name,o in result[size].items():
                print(f"{size} {name:8}{o['reads_per_s']:10,.0f} reads/s   disk {o['bytes_over_vectors']:5.2f} x the vectors"
                    f"   written in {o['write_s']:6.1f} s   merged in {o['merge_s']:6.2f} s", flush=True)
            shutil.rmtree(work/size.replace(" ", ""))
        for n in (a.merge//10, a.merge) if a.merge else ():
            m = result[f"merge of {a.parts*n:,}"] = merge_large(work, a.parts, n)
            shutil.rmtree(work/"whole")
            print(f"merge: {m['added']:,} records of {a.parts} parts, {m['parts_gb']:.1f} GB, in {m['seconds']:.1f} s; memory"
                f" {m['before_mb']:.0f} MB before, at most {m['peak_mb']:.0f} MB, with mapped files {m['peak_with_files_mb']:.0f}"
                f" MB; then {m['reads_per_s'][0]:,.0f} and {m['reads_per_s'][1]:,.0f} reads/s")
    finally: shutil.rmtree(work)
    write_json(a.out, result)
    print(f"store_formats: {len(formats)} formats, {a.out}")


if __name__ == "__main__": sys.exit(main())
