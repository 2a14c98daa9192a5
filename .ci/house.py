"""How the notebooks and the package of a checkout are laid out, as one table.

    python .ci/house.py [ROOT] [--against OTHER_ROOT] [--notebook NAME …]

Reads files as text and imports nothing of the project, so it measures any commit with the same rules.
"""
import argparse
import ast
import json
import math
import re
import statistics
from pathlib import Path

CHECK = re.compile(r"^\s*(assert\b|test_\w+\(|with expect_fail|with ExceptionExpected|np\.testing\.|torch\.testing\.)", re.M)
DIRECTIVE = re.compile(r"^\s*#\|")
MESSAGE = re.compile(r"Error\(|Dependency\(|notes\.append\(|Exhausted\(|Refused\(|Unreachable\(")

def pages(root):
    "Notebooks of a checkout, in order"
    nbs = Path(root)/"nbs"
    names = (p for p in nbs.rglob("*.ipynb") if not any(o.startswith((".", "_")) for o in p.relative_to(nbs).parts))
    return sorted(names)

def cells_of(path):
    return [(c["cell_type"], "".join(c["source"])) for c in json.loads(path.read_text(encoding="utf-8"))["cells"]]

def directives(source): return [l.strip() for l in source.splitlines() if DIRECTIVE.match(l)]
def body(source): return "\n".join(l for l in source.splitlines() if not DIRECTIVE.match(l)).strip()
def is_export(source): return any(re.match(r"#\|\s*export\b", l) for l in directives(source))
def is_hidden(source): return any(re.match(r"#\|\s*(hide|echo:\s*false|include:\s*false)", l) for l in directives(source))

def only_imports(source):
    try: tree = ast.parse(source)
    except SyntaxError: return False
    return bool(tree.body) and all(isinstance(n, (ast.Import, ast.ImportFrom)) for n in tree.body)

def public_defs(source):
    "Public functions and classes that a cell defines at its top"
    try: tree = ast.parse(source)
    except SyntaxError: return []
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return [n for n in tree.body if isinstance(n, kinds) and not n.name.startswith("_")]

def arguments(node):
    "Parameters of the functions of a definition: a function's own, a class's public methods'"
    if isinstance(node, ast.ClassDef):
        funcs = [n for n in node.body if isinstance(n, ast.FunctionDef) and (n.name == "__init__" or not n.name.startswith("_"))]
    else: funcs = [node]
    for f in funcs:
        args = [*f.args.posonlyargs, *f.args.args, *f.args.kwonlyargs]
        first = f.args.args[0].arg if f.args.args else None
        yield from (a for a in args if not (a.arg == first and first in ("self", "cls")))

def notebook_figures(paths):
    "Figures of the exported cells of these notebooks"
    lines,chars,columns,messages,total = [],[],0,0,0
    defs = code = check = params = typed = 0
    for path in paths:
        cells = [s for kind,s in cells_of(path) if kind == "code"]
        for i,s in enumerate(cells):
            if not is_export(s): continue
            text = body(s)
            if not text: continue
            lines.append(sum(bool(l.strip()) for l in text.splitlines()))
            chars.append(len(text))
            total += len(text.splitlines())
            for l in text.splitlines():
                if len(l) > 120:
                    if MESSAGE.search(l): messages += 1
                    else: columns += 1
            public = public_defs(text)
            defs += len(public)
            after = cells[i+1] if i+1 < len(cells) else ""
            seen = bool(body(after)) and not is_export(after) and not is_hidden(after) and not only_imports(body(after))
            code += len(public)*seen
            check += len(public)*(seen and bool(CHECK.search(body(after))))
            for d in public:
                args = list(arguments(d))
                params += len(args)
                typed += sum(a.annotation is not None for a in args)
    if not lines: return {}
    q = lambda v: statistics.quantiles(v, n=10)[8] if len(v) > 1 else v[0]
    return {"exported cells": len(lines), "lines of a cell, median": statistics.median(lines), "lines of a cell, 90 %": q(lines),
        "characters of a cell, median": statistics.median(chars), "characters of a cell, 90 %": q(chars),
        "lines over 120 columns, %": 100*columns/total, "the same, error texts, %": 100*messages/total,
        "public definitions": defs, "followed by visible code, %": 100*code/max(defs, 1), "followed by a visible check, %": 100*check/max(defs, 1),
        "annotated parameters, %": 100*typed/max(params, 1)}

def modules(root):
    package = Path(root)/"popnb"
    return {p.relative_to(package).as_posix()[:-3].replace("/", "."): p for p in sorted(package.rglob("*.py")) if not p.name.startswith("_")}

def imports(root):
    "module -> modules of popnb that it imports anywhere, lazily too"
    mods = modules(root)
    out = {}
    for name,path in mods.items():
        base = ["popnb", *name.split(".")[:-1]]
        found = set()
        for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(n, ast.ImportFrom):
                stem = ".".join(base[:len(base)-n.level+1] + ([n.module] if n.module else [])) if n.level else n.module or ""
                if stem.split(".")[0] != "popnb": continue
                found |= {m for a in n.names for m in (f"{stem}.{a.name}"[6:], stem[6:]) if m in mods}
            elif isinstance(n, ast.Import): found |= {a.name[6:] for a in n.names if a.name[6:] in mods}
        out[name] = found - {name}
    return out

def room_of(module):
    "The package at the top that a module stands in; a module at the top is a room of its own"
    return module.partition(".")[0]

def circles(arrows):
    "Rooms that reach themselves again"
    def reach(a, seen):
        for b in arrows.get(a, ()):
            if b not in seen:
                seen.add(b)
                reach(b, seen)
        return seen
    return sorted(a for a in arrows if a in reach(a, set()))

def package_figures(root):
    mods,graph = modules(root),imports(root)
    arrows = {}
    for m,found in graph.items(): arrows.setdefault(room_of(m), set()).update(room_of(o) for o in found if room_of(o) != room_of(m))
    inner = {}          # the same with each package of a package as a room
    for m,found in graph.items(): inner.setdefault(m.rpartition(".")[0] or m, set()).update(k for o in found if (k := o.rpartition(".")[0] or o) != (m.rpartition(".")[0] or m))
    lines = [l for p in mods.values() for l in p.read_text(encoding="utf-8").splitlines() if l.strip() and not l.startswith(("# %%", "# AUTOGENERATED"))]
    return {"modules": len(mods), "modules at the top of popnb/": sum("." not in m for m in mods), "rooms": len(arrows), "arrows": sum(map(len, arrows.values())),
        "rooms in a circle": len(circles(arrows)), "packages in a circle": len(circles(inner)), "modules in a circle": len(circles(graph)), "lines of popnb/": len(lines), "the same at 120 columns": sum(math.ceil(len(l)/120) for l in lines)}

def figures(root, names=()):
    paths = [p for p in pages(root) if not names or any(p.as_posix().endswith(n if n.endswith(".ipynb") else n+".ipynb") for n in names)]
    return notebook_figures(paths) | ({} if names else package_figures(root))

if __name__ == "__main__":
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("root", nargs="?", default=Path(__file__).resolve().parent.parent)
    ap.add_argument("--against", help="another checkout, shown before this one")
    ap.add_argument("--notebook", nargs="*", default=[], help="only these pages, e.g. data/01_table")
    ap.add_argument("--each", action="store_true", help="a row for each page")
    o = ap.parse_args()
    if o.each:
        for p in pages(o.root):
            if f := notebook_figures([p]): print(f"{p.relative_to(Path(o.root)/'nbs').as_posix():48}", " ".join(f"{v:7.1f}" for v in f.values()))
        raise SystemExit
    now = figures(o.root, o.notebook)
    before = figures(o.against, o.notebook) if o.against else {}
    for k,v in now.items():
        row = [f"{k:36}"] + ([f"{before.get(k, float('nan')):10.1f}"] if before else []) + [f"{v:10.1f}"]
        print(" ".join(row))
