"""Look for attributes of packages that exist only because somebody else imported a submodule.

    python .ci/lazy_attributes.py [NAME…]      all packages, or those named; exit 1 where an attribute is missing

Some packages load their submodules at first need, others not at all: `huggingface_hub.constants` is an
AttributeError in a fresh process until a submodule has been imported. Every chain of attributes that popnb uses of a
package (`torch.hub.get_dir`, from `import torch` or `need("torch", …)`) is tried in a process that has imported
nothing but what the cell itself names.
"""
import ast
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OWN = {"popnb", *sys.stdlib_module_names}

TRY = """
import importlib, inspect, json, os, sys
base,chains = json.loads(sys.argv[1])
importlib.import_module(base)
there = set(sys.modules)

def follow(chain):
    "Error of a chain of attributes, and whether it leads through a module that was not there"
    o,lazy = sys.modules[base],False
    for name in chain.split("."):
        if not inspect.ismodule(o): break
        try: o = getattr(o, name)
        except Exception as e: return f"{type(e).__name__}: {e}",lazy
        lazy |= inspect.ismodule(o) and o.__name__ not in there
    return "",lazy

def apart(f):
    "The result of f() in a copy of this process"
    read,write = os.pipe()
    if not os.fork():
        os.write(write, json.dumps(f()).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as r: out = json.loads(r.read())
    os.wait()
    return out

first = apart(lambda: {c: follow(c) for c in chains})
alone = {c: apart(lambda: follow(c)) if lazy else (said, lazy) for c,(said,lazy) in first.items()}
print(json.dumps([(c, said) for c,(said,_) in alone.items() if said]))
"""

def chain_of(node):
    "`(root expression, [names])` of `root.a.b`"
    names = []
    while isinstance(node, ast.Attribute):
        names.insert(0, node.attr)
        node = node.value
    return node,names

def needed(node):
    "Name of the module that `need` or `importlib.import_module` imports, else `None`"
    if not isinstance(node, ast.Call) or not node.args: return None
    name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
    first = node.args[0]
    return first.value if name in ("need", "import_module") and isinstance(first, ast.Constant) else None

def assigned(node):
    "`(target, value)` of an assignment, tuples taken apart"
    for target in node.targets:
        pairs = [(target, node.value)]
        if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple): pairs = list(zip(target.elts, node.value.elts))
        for t,v in pairs:
            if isinstance(t, ast.Name): yield t.id,v

FUNCTIONS = ast.FunctionDef,ast.AsyncFunctionDef,ast.Lambda

def own_nodes(node):
    "Nodes of a function or file, without those of the functions inside it"
    for child in ast.iter_child_nodes(node):
        yield child
        if not isinstance(child, FUNCTIONS): yield from own_nodes(child)

def names_in(scope):
    "Name -> module, from the imports and assignments of a function or file; `None` for a name that is something else"
    found = {a.arg: None for a in ast.walk(scope.args) if isinstance(a, ast.arg)} if isinstance(scope, FUNCTIONS) else {}
    for n in own_nodes(scope):
        if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store): found.setdefault(n.id, None)
    for n in own_nodes(scope):
        if isinstance(n, ast.Import):
            for a in n.names: found[a.asname or a.name.split(".")[0]] = a.name if a.asname else a.name.split(".")[0]
        if isinstance(n, ast.Assign): found |= {name: module for name,v in assigned(n) if (module := needed(v))}
        if isinstance(n, ast.FunctionDef) and isinstance(n.body[-1], ast.Return):
            if module := needed(n.body[-1].value): found[f"{n.name}()"] = module
    return found

def submodules_in(tree):
    "Modules that the file itself imports with their full names: `import a.b`"
    return {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names if "." in a.name and not a.asname}

def attributes(scope, outer):
    "`(module, chain)` of the attribute chains of a function or file, given the names around it"
    names,nodes = outer | names_in(scope),list(own_nodes(scope))
    inner = {id(n.value) for n in nodes if isinstance(n, ast.Attribute)}
    for n in nodes:
        if isinstance(n, FUNCTIONS): yield from attributes(n, names)
        if not isinstance(n, ast.Attribute) or id(n) in inner: continue
        root,chain = chain_of(n)
        if isinstance(root, ast.Name): module = names.get(root.id)
        elif isinstance(root, ast.Call): module = needed(root) or names.get(f"{getattr(root.func, 'id', '')}()")
        else: module = None
        if module: yield module,chain

def uses(path):
    "`(module, chain)` of every attribute chain of another package in a file"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    own = submodules_in(tree)
    for base,names in attributes(tree, {}):
        explicit = any(f"{base}.{'.'.join(names[:k])}" in own for k in range(1, len(names)+1))
        if base.split(".")[0] not in OWN and not explicit: yield base,".".join(names)

def collect(folder=ROOT/"popnb"):
    "Module -> chain -> files that use it"
    found = {}
    for path in sorted(folder.rglob("*.py")):
        for base,chain in uses(path): found.setdefault(base, {}).setdefault(chain, []).append(path.relative_to(folder).as_posix())
    return found

def missing(base, chains):
    "`[(chain, error)]` of the chains that a fresh process with this one import does not have"
    out = subprocess.run([sys.executable, "-W", "ignore", "-c", TRY, json.dumps([base, sorted(chains)])], capture_output=True, text=True)
    if out.returncode: return [("", f"cannot be imported here: {out.stderr.strip().splitlines()[-1]}")]
    return json.loads(out.stdout.splitlines()[-1])

def main(names=()):
    bad,found = 0,collect()
    for base in sorted(names or found):
        for chain,error in missing(base, found.get(base, {})):
            if not chain:
                print(f"{base} {error}: not checked.")
                continue
            bad += 1
            print(f"{', '.join(sorted(set(found[base][chain])))}: {base}.{chain} does not exist after `import {base}` ({error}); import the submodule that defines it.")
    print(f"{sum(map(len, found.values()))} attribute chains of {len(found)} packages, {bad} missing.")
    return int(bad > 0)

if __name__ == "__main__": raise SystemExit(main(sys.argv[1:]))
