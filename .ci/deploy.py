"""Check the files of deploy/ as far as a machine without Docker, SLURM and Kubernetes can.

    python .ci/deploy.py [FOLDER]

YAML files parse and have the fields that Ray and KubeRay require, shell scripts parse and their #SBATCH lines are options that
exist, Dockerfiles use known instructions, a fixed tag and a user who is not root, every option of a `popnb` or `ray` command
exists, and nothing looks like a secret. One line a problem; exit code 1 if there is one.
"""
import importlib.util
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import yaml

FOLDER = Path(__file__).resolve().parent.parent/"deploy"
INSTRUCTIONS = {"FROM", "RUN", "COPY", "USER", "WORKDIR", "ENV", "CMD", "ENTRYPOINT", "ARG", "LABEL", "EXPOSE", "HEALTHCHECK", "SHELL"}
SBATCH = {"job-name", "nodes", "ntasks-per-node", "gpus-per-node", "cpus-per-task", "exclusive", "time", "requeue", "signal", "output",
    "mem", "partition", "account", "gres"}
SECRET = re.compile(r"AKIA[0-9A-Z]{16}|hf_[A-Za-z0-9]{20,}|-----BEGIN|(?i:(secret|passw(or)?d|token|api_?key|credential)s?[\"']?\s*[:=]\s*[\"']?\w{6,})")

def joined(text):
    "Lines without comments, those that end in a backslash joined"
    return re.sub(r"\s*\\\n\s*", " ", "\n".join(l for l in text.splitlines() if not re.match(r"\s*#(?!SBATCH)", l))).splitlines()

def dockerfile(path):
    "Problems of a Dockerfile"
    lines = [l for l in joined(path.read_text()) if l.strip()]
    names = [l.split()[0] for l in lines]
    out = [f"unknown instruction {n}" for n in names if n not in INSTRUCTIONS]
    if names[0] != "FROM": out.append("does not begin with FROM")
    out += [f"{l}: no fixed tag" for l in lines if l.startswith("FROM") and (":" not in l or l.endswith(":latest"))]
    if not any(l.startswith("USER") and l.split()[1] not in ("root", "0") for l in lines): out.append("runs as root")
    for l in lines:
        if l.startswith("CMD") and not re.fullmatch(r'CMD \[("[^"]*"(, )?)+\]', l): out.append("CMD is no list of texts")
        if l.startswith("COPY"):
            out += [f"COPY {p}: not in the repository" for p in l.split()[1:-1] if not (path.parent.parent/p).exists()]
    return out

def script(path):
    "Problems of a shell script"
    done = subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True)
    out = [done.stderr.strip()] if done.returncode else []
    given = re.findall(r"^#SBATCH --([\w-]+)", path.read_text(), re.M)
    if "slurm" in path.name and not {"job-name", "nodes", "time"} <= set(given): out.append("#SBATCH lacks job-name, nodes or time")
    return out + [f"unknown #SBATCH --{o}" for o in given if o not in SBATCH]

def missing(o, *paths):
    "Dotted paths that a nested dict lacks"
    def there(o, keys): return not keys or isinstance(o, dict) and keys[0] in o and there(o[keys[0]], keys[1:])
    return [f"lacks {p}" for p in paths if not there(o, p.split("."))]

def ray_cluster(o):
    "Problems of a cluster file of Ray"
    out = missing(o, "cluster_name", "provider.type", "auth.ssh_user", "available_node_types", "head_node_type")
    if o.get("head_node_type") not in o.get("available_node_types", {}): out.append("head_node_type is no node type")
    home = importlib.util.find_spec("ray")
    if home is None: return out
    import jsonschema
    schema = json.loads((Path(home.origin).parent/"autoscaler"/"ray-schema.json").read_text())
    return out + [e.message for e in jsonschema.Draft7Validator(schema).iter_errors(o)]

def ray_job(o):
    "Problems of a RayJob"
    out = missing(o, "apiVersion", "metadata.name", "spec.entrypoint", "spec.rayClusterSpec.headGroupSpec.template.spec.containers",
        "spec.rayClusterSpec.workerGroupSpecs")
    if o.get("apiVersion") != "ray.io/v1": out.append("apiVersion is not ray.io/v1")
    if out: return out
    groups = o["spec"]["rayClusterSpec"]
    for g in (groups["headGroupSpec"], *groups["workerGroupSpecs"]):
        name,pod = g.get("groupName", "head"),g["template"]["spec"]
        if "groupName" in g and not g["minReplicas"] <= g["replicas"] <= g["maxReplicas"]: out.append(f"{name}: replicas out of their range")
        volumes = {v["name"] for v in pod.get("volumes", [])}
        for c in pod["containers"]:
            out += [f"{name}: {p}" for p in missing(c, "name", "image", "resources.limits.cpu", "resources.limits.memory")]
            out += [f"{name}: no volume {m['name']}" for m in c.get("volumeMounts", []) if m["name"] not in volumes]
            if any(not isinstance(v, str) for v in g.get("rayStartParams", {}).values()): out.append(f"{name}: rayStartParams must be texts")
    return out

def commands(text):
    "Words of the `popnb` and `ray` commands of a file; a variable counts as the number 1"
    for line in joined(text):
        line = re.sub(r"\$\(\([^)]*\)\)|\$\{?\w+\}?", "1", line.replace(' "$@"', ""))
        for start in re.finditer(r"(?<![\w./:-])(?:-m popnb\.cli\.main|popnb|ray) (?=[a-z])", line):
            text = re.split(r";| && ", line[start.start():])[0].strip()
            try: words = shlex.split(text, comments=True)
            except ValueError: words = shlex.split(re.sub("[\"']", "", text), comments=True)    # it stands within quotes
            yield ["popnb", *words[2:]] if words[0] == "-m" else words

def options_of(words):
    "Known options of a command of popnb or Ray, its parameters, and the words after its name; `None` for an unknown command"
    import typer
    from popnb.cli.main import app
    if words[0] == "ray":
        if importlib.util.find_spec("ray") is None: return {}
        from ray.scripts.scripts import cli as top
    else: top = typer.main.get_command(app)
    rest = words[1:]
    while hasattr(top, "commands"):
        if not rest or rest[0] not in top.commands: return None
        top,rest = top.commands[rest[0]],rest[1:]
    return {o: p for p in top.params for o in (*p.opts, *p.secondary_opts) if o.startswith("-")},top,rest

def command(words):
    "Problems of a command"
    found = options_of(words)
    if found == {}: return []
    if found is None: return [f"{' '.join(words[:2])} is no command"]
    known,program,rest = found
    end = rest.index("--") if "--" in rest else len(rest)
    given = [w.partition("=")[0] for w in rest[:end] if w.startswith("-")]
    if program.name.replace("_", "-") == "symmetric-run":
        from ray.scripts.scripts import cli as top
        known = known | {o: p for p in top.commands["start"].params for o in p.opts}
    out = [f"{' '.join(words[:2])} has no option {o}" for o in given if o not in known]
    if words[0] == "popnb" and not out:
        try: program.make_context(program.name, list(rest))
        except Exception as e: out.append(f"{shlex.join(words)}: {getattr(e, 'message', e)}")
    return out

def problems_of(path):
    "Problems of a file"
    text = path.read_text(encoding="utf-8")
    out = [f"looks like a secret: {m.group()[:12]}…" for m in SECRET.finditer(text)]
    if path.name.startswith("Dockerfile"): out += dockerfile(path)
    elif path.suffix == ".sh": out += script(path)
    elif path.suffix == ".yaml":
        o = yaml.safe_load(text)
        out += ray_job(o) if o.get("kind") == "RayJob" else ray_cluster(o)
    return out + [p for words in commands(text) for p in command(words)]

def check(folder=FOLDER):
    "`(number of files, number of commands, problems)` of a folder"
    files = sorted(p for p in Path(folder).iterdir() if p.is_file())
    n = sum(len(list(commands(p.read_text(encoding="utf-8")))) for p in files)
    return len(files),n,[f"{p.name}: {o}" for p in files for o in problems_of(p)]

if __name__ == "__main__":
    files,n,found = check(*sys.argv[1:2])
    print("\n".join(found + [f"{files} files, {n} commands, {len(found)} problems"]))
    sys.exit(bool(found))
