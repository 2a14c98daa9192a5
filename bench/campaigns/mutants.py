"""Planted faults: which of them do the pages' own checks find?

    python bench/campaigns/mutants.py [--rounds 300] [--seed 0] [--only PAGE] [--jobs 1] [--seconds S] [--out FILE]

A mutant is an exported cell of a page with one place changed: a comparison, an operator, a constant by one, `and` and `or`,
a `not`, a guard that is gone, two arguments exchanged, `min` and `max`. The page is then run from its first cell to the first
failure, in a process of its own with a temporary folder of its own, on a copy of the project. Files of the package that child
processes import carry the same fault. A mutant that no cell notices is a survivor. Which places are changed depends on the
code and the seed only, not on the checks, so that a page with a new check is tried with the same faults.

`mutants_argued.json` beside this script says of survivors why they change nothing that a check could see."""
import argparse, ast, contextlib, copy, hashlib, json, os, re, shutil, signal, sys, tempfile, time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ARGUED = Path(__file__).with_name("mutants_argued.json")
PAGES = ("metrics/01_rank_stats", "metrics/02_metrics", "metrics/03_bootstrap", "metrics/04_verdict", "losses/01_curve",
         "losses/02_regression", "data/03_sources", "data/05_labels", "data/07_splits", "youtube/04_quota",
         "features/01_store", "evaluation/01_prediction_files")
SKIPPED = re.compile(r"^\s*#\|\s*(slow|gpu|net|eval:\s*false)\b", re.M)
EXPORTED = re.compile(r"^\s*#\|\s*(export|exporti)\b", re.M)
COMPARE = {ast.Lt: (ast.LtE, ast.Gt), ast.LtE: (ast.Lt, ast.GtE), ast.Gt: (ast.GtE, ast.Lt), ast.GtE: (ast.Gt, ast.LtE),
           ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,),
           ast.In: (ast.NotIn,), ast.NotIn: (ast.In,)}
OPERATOR = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
            ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd}
NAMES = {"min": "max", "max": "min", "minimum": "maximum", "maximum": "minimum", "any": "all", "all": "any",
         "fmin": "fmax", "fmax": "fmin", "floor": "ceil", "ceil": "floor", "argmin": "argmax", "argmax": "argmin"}
SYMMETRIC = {"min", "max", "minimum", "maximum", "fmin", "fmax", "gcd", "logical_or", "logical_and"}  # order is no fault


def constants(node):
    "Changed values of a constant"
    v = node.value
    if isinstance(v, bool): return [not v]
    if isinstance(v, int): return [v+1, v-1]
    if isinstance(v, float) and v == v and abs(v) != float("inf"): return [v+1, v*.9]
    return []


def changes(node):
    "Kind and replacement of each fault that can be planted at a node of the syntax tree"
    def with_(**parts):
        new = copy.deepcopy(node)
        for k,v in parts.items(): setattr(new, k, v)
        return new
    if isinstance(node, ast.Compare):
        for i,op in enumerate(node.ops):
            for o in COMPARE.get(type(op), ()): yield "comparison", with_(ops=node.ops[:i]+[o()]+node.ops[i+1:])
    elif isinstance(node, ast.BinOp) and type(node.op) in OPERATOR and not isinstance(node.left, (ast.JoinedStr, ast.List)):
        yield "operator", with_(op=OPERATOR[type(node.op)]())
    elif isinstance(node, ast.BoolOp): yield "and/or", with_(op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub)): yield "not/minus", node.operand
    elif isinstance(node, ast.Constant):
        for v in constants(node): yield "constant", with_(value=v)
    elif isinstance(node, (ast.Name, ast.Attribute)):
        field = "id" if isinstance(node, ast.Name) else "attr"
        if (new := NAMES.get(getattr(node, field))) and isinstance(node.ctx, ast.Load): yield "min/max", with_(**{field: new})
    elif isinstance(node, ast.Call) and len(node.args) > 1 and not any(isinstance(o, ast.Starred) for o in node.args[:2]):
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        if ast.dump(node.args[0]) != ast.dump(node.args[1]) and name not in SYMMETRIC:
            yield "arguments", with_(args=[node.args[1], node.args[0], *node.args[2:]])
    elif isinstance(node, ast.Raise): yield "raise", ast.Pass()
    elif isinstance(node, (ast.If, ast.IfExp)):
        leaves = isinstance(node, ast.If) and any(isinstance(o, (ast.Raise, ast.Return, ast.Continue)) for o in node.body)
        yield ("guard" if leaves else "condition"), with_(test=ast.Constant(value=False))


def places(tree):
    "Nodes that may carry a fault, each with the node whose text is replaced: no annotations, imports, docstrings"
    def walk(node, at):
        if isinstance(node, (ast.Import, ast.ImportFrom)): return
        at = node if isinstance(node, ast.JoinedStr) else at
        yield node,at
        for field,value in ast.iter_fields(node):
            if field in ("annotation", "returns", "format_spec", "type_comment"): continue
            for o in value if isinstance(value, list) else [value]:
                if isinstance(o, ast.AST): yield from walk(o, at)
    yield from walk(tree, None)


def offset(lines, line, column):
    "Position in a text of a line and a column in UTF-8 bytes"
    return sum(map(len, lines[:line-1])) + len(lines[line-1].encode()[:column].decode())


def replaced(source, lines, node, at, new):
    "The text with one node replaced; within an f-string the whole string is written anew"
    if at is not None:
        twin = copy.deepcopy(at)
        path = next(i for i,o in enumerate(ast.walk(at)) if o is node)
        old = next(o for i,o in enumerate(ast.walk(twin)) if i == path)
        for parent in ast.walk(twin):
            for field,value in ast.iter_fields(parent):
                if value is old: setattr(parent, field, new)
                elif isinstance(value, list): setattr(parent, field, [new if o is old else o for o in value])
        node,new = at,twin
    a,b = offset(lines, node.lineno, node.col_offset),offset(lines, node.end_lineno, node.end_col_offset)
    if isinstance(node, ast.If):      # only its test: comments within stay
        t = node.test
        a,b = offset(lines, t.lineno, t.col_offset),offset(lines, t.end_lineno, t.end_col_offset)
        return source[:a] + "False" + source[b:]
    text = ast.unparse(ast.fix_missing_locations(new))
    if isinstance(new, ast.expr) and not isinstance(new, (ast.Name, ast.Attribute)): text = f"({text})"
    return source[:a] + text + source[b:]


def statement(before, after):
    "The first line that differs, before and after"
    old,new = before.splitlines(),after.splitlines()
    i = next((i for i,(a,b) in enumerate(zip(old, new)) if a != b), 0)
    same = len(old) == len(new)
    return i+1, old[i].strip(), (new[i] if same else " ".join(o.strip() for o in new[i:i+1])).strip()


def mutants(page, cells):
    "All faults of a page, each a dict"
    seen = set()
    for number,cell in enumerate(cells):
        if not EXPORTED.search(cell): continue
        tree,lines = ast.parse(cell),cell.splitlines(keepends=True)
        for node,at in places(tree):
            for kind,new in changes(node):
                try:
                    after = replaced(cell, lines, node, at, new)
                    if ast.dump(ast.parse(after)) == ast.dump(tree) or after in seen: continue
                except (SyntaxError, ValueError, StopIteration): continue
                seen.add(after)
                line,old,text = statement(cell, after)
                yield dict(page=page, cell=number, line=line, kind=kind, before=old, after=text, source=after)


def code_cells(page):
    "Sources of the code cells that run everywhere"
    cells = json.loads((ROOT/f"nbs/{page}.ipynb").read_text(encoding="utf-8"))["cells"]
    cells = ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]
    return [c for c in cells if not SKIPPED.search(c)]


def sample(pages, rounds, seed):
    "Faults drawn by a hash of their text, each page in proportion to its faults, at least 10"
    found = {p: list(mutants(p, cells)) for p,cells in pages.items()}
    total,out = sum(map(len, found.values())),[]
    for page,all_ in found.items():
        key = lambda m: hashlib.sha256(f"{seed} {page} {m['before']} {m['after']}".encode()).hexdigest()
        out += sorted(all_, key=key)[:max(10, round(rounds*len(all_)/total))]
    return out,{p: len(v) for p,v in found.items()}


def module_file(cells):
    "File of the package that the page exports"
    name = next(m[1] for c in cells if (m := re.search(r"#\|\s*default_exp (\S+)", c)))
    return "popnb/" + name.replace(".", "/") + ".py"


def plant(copy_, cells, mutant):
    "Write the fault into the exported file of a copy of the package, for child processes; `False`: its text stands elsewhere"
    file = copy_/module_file(cells)
    def body(c): return "\n".join(o for o in c.splitlines() if not o.startswith("#|")).strip()
    original,changed = body(cells[mutant["cell"]]),body(mutant["source"])
    text = file.read_text(encoding="utf-8")
    relative = lambda c: re.sub(r"from popnb\.", "from ..", c)
    for f in (str, relative):
        if f(original) in text:
            file.write_text(text.replace(f(original), f(changed), 1), encoding="utf-8")
            return True
    return False


def run_page(page, cells, project, report):
    "Run the cells as the test command does, up to the first failure; writes what failed to `report`"
    from execnb.shell import CaptureShell
    os.environ.update(IN_TEST="1", PYTHONPATH=str(project))
    sys.path.insert(0, str(project))
    os.chdir(project/"nbs"/Path(page).parent)
    shell = CaptureShell(project/f"nbs/{page}.ipynb")
    for i,cell in enumerate(cells):
        shell.run(cell)
        if shell.exc is None: continue
        Path(report).write_text(json.dumps({"cell": i, "error": f"{type(shell.exc).__name__}: {shell.exc}"[:300]}))
        return 1
    return 0


def snapshot(d):
    "Copy the package and the pages, which may change while the faults are tried"
    for name in ("popnb", "nbs"): shutil.copytree(ROOT/name, d/name, ignore=shutil.ignore_patterns("__pycache__"))
    return d


def start(project, cells, mutant):
    "Run a page, with a fault or without, in a child process; its process id and folder"
    d = Path(tempfile.mkdtemp(prefix="mutant-"))
    d.chmod(0o755)      # checks that give up their rights still reach it
    pid = os.fork()
    if pid: return pid, d
    code = 3
    try:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for o in (0, 1, 2): os.dup2(null, o)
        (d/"tmp").mkdir()
        (d/"tmp").chmod(0o1777)
        os.environ["TMPDIR"] = str(d/"tmp")
        os.environ["POPNB_STORE"] = str(d/"tmp"/"store")
        tempfile.tempdir = None
        shutil.copytree(project/"popnb", d/"project/popnb")
        (d/"project/nbs").symlink_to(project/"nbs")
        if mutant.get("source"):
            plant(d/"project", cells, mutant)
            cells = cells[:mutant["cell"]] + [mutant["source"]] + cells[mutant["cell"]+1:]
        code = run_page(mutant["page"], cells, d/"project", d/"report.json")
    except BaseException as e:
        with contextlib.suppress(OSError): (d/"report.json").write_text(json.dumps({"error": f"{type(e).__name__}: {e}"[:300]}))
    finally: os._exit(code)


def outcome(pid, d, begun, limit):
    "`None` while a child runs; else its verdict: `caught`, `timeout` or `survived`, and what failed"
    done,status = os.waitpid(pid, os.WNOHANG)
    if not done and time.monotonic()-begun < limit: return None
    with contextlib.suppress(ProcessLookupError): os.killpg(pid, signal.SIGKILL)
    if not done: os.waitpid(pid, 0)
    told = json.loads((d/"report.json").read_text()) if (d/"report.json").exists() else {}
    shutil.rmtree(d, ignore_errors=True)
    if not done: return "timeout", told
    return ("survived" if os.waitstatus_to_exitcode(status) == 0 else "caught"), told


def run_all(project, pages, work, jobs, limits, until):
    "Run faults, several at once; yields each with its verdict"
    waiting,running = list(work),[]
    while waiting or running:
        while waiting and len(running) < jobs and time.monotonic() < until:
            m = waiting.pop(0)
            pid,d = start(project, pages[m["page"]], m)
            running.append((m, pid, d, time.monotonic()))
        if not running: return
        for o in list(running):
            m,pid,d,begun = o
            if (verdict := outcome(pid, d, begun, limits.get(m["page"], 300))) is None: continue
            running.remove(o)
            yield m, *verdict, time.monotonic()-begun
        time.sleep(.02)


def preload():
    "Import what most pages need, so that each child starts with it"
    import execnb.shell, fastcore.test, matplotlib.pyplot, numpy, pandas, pyarrow.parquet, scipy.stats, sklearn.metrics, torch
    torch.set_num_threads(1)


def baseline(project, pages):
    "Seconds of each page without a fault; a page that fails is an error"
    out = {}
    for m,verdict,told,seconds in run_all(project, pages, [{"page": p} for p in pages], 1, {}, float("inf")):
        if verdict == "survived": out[m["page"]] = seconds
        print(f"{m['page']:36}{seconds:6.1f} s without a fault", told or "", flush=True)
    if len(out) < len(pages): raise SystemExit("Pages that fail without a fault cannot be tried.")
    return out


def summary(results, found, argued):
    "Counts by page and in all"
    key = lambda m: f"{m['page']}: {m['before']} → {m['after']}"
    pages = {}
    for m,verdict,*_ in results:
        none = {"places": found[m["page"]]} | dict.fromkeys(("tried", "caught", "timeout", "survived", "argued"), 0)
        row = pages.setdefault(m["page"], none)
        row["tried"] += 1
        row[verdict] += 1
        row["argued"] += verdict == "survived" and key(m) in argued
    lost = [{"fault": key(m), "kind": m["kind"], "argument": argued.get(key(m), "")}
            for m,verdict,*_ in results if verdict == "survived"]
    total = dict(sum((Counter(o) for o in pages.values()), Counter()))
    kinds = {k: dict(Counter(v for m,v,*_ in results if m["kind"] == k)) for k in sorted({m["kind"] for m,*_ in results})}
    return {"total": total, "pages": pages, "kinds": kinds, "survivors": lost}


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--rounds", type=int, default=300, help="number of faults")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--only", help="parts of the names of pages, with commas")
    p.add_argument("--jobs", type=int, default=1, help="pages at once")
    p.add_argument("--seconds", type=float, default=float("inf"), help="start no fault after so many seconds")
    p.add_argument("--out", help="JSON file of the results")
    o = p.parse_args()
    begun,until = time.monotonic(),time.monotonic()+o.seconds
    preload()
    argued,results = json.loads(ARGUED.read_text()) if ARGUED.exists() else {},[]
    with tempfile.TemporaryDirectory(prefix="mutants-", ignore_cleanup_errors=True) as d:
        project = snapshot(Path(d))
        pages = {p: code_cells(p) for p in PAGES if not o.only or any(k in p for k in o.only.split(","))}
        drawn,found = sample(pages, o.rounds, o.seed)
        limits = {k: 3*v+20 for k,v in baseline(project, pages).items()}
        for m,verdict,told,seconds in run_all(project, pages, drawn, o.jobs, limits, until):
            results.append((m, verdict, told))
            if verdict != "caught": print(f"{verdict:9}{m['page']} [{m['kind']}] {m['before']}  →  {m['after']}", flush=True)
    out = {"seed": o.seed, "seconds": round(time.monotonic()-begun)} | summary(results, found, argued)
    if o.out: Path(o.out).write_text(json.dumps(out, indent=1, ensure_ascii=False) + "\n")
    t = Counter(out["total"])
    killed,real = t["caught"]+t["timeout"],t["tried"]-t["argued"]
    print(f"{t['tried']} faults of {t['places']} places in {len(found)} pages, {out['seconds']} s: {killed} found "
          f"({killed/max(1, t['tried']):.1%}, {killed/max(1, real):.1%} of those that are not argued; {t['timeout']} by the time "
          f"limit), {t['survived']} survived, {t['argued']} of these argued")
    return 1 if t["survived"] > t["argued"] else 0


if __name__ == "__main__": sys.exit(main())
