"""Predict how popular a short video will be

The workflow, from a file of videos to an answer; `help(popnb.train)` and the like list all parameters:

    import popnb
    table, report = popnb.read_source("csv", "videos.csv")    # or simulate, collect, read_table
    popnb.audit(table)                                        # what is wrong with it, the worst first
    table = popnb.clean(table).table                          # drop and flag rows by named rules
    run = popnb.train("tabular", table, "runs/first")         # split, fit, score, write a run folder
    popnb.leaderboard(["runs/first", "runs/second"])          # runs on the same test rows
    popnb.tune("tabular", table, "runs/tuned", budget="30m")  # search over options; the best run is runs/tuned/best
    popnb.auto(table, "runs/best", budget="2h")               # the best run of all systems within two hours
    popnb.distil("runs/best", table, "runs/small")            # a small model that learns its predictions
    model = popnb.load("runs/first")                          # any system, from its folder
    popnb.predict(model, ["clip.mp4"], title="Rice in 1 min") # videos, thumbnails, folders or tables
    popnb.explain("runs/first", "clip.mp4", "why")            # what moved the score

The same in a shell: `popnb --help`. What works on this machine: `popnb.doctor()`.
"""
__version__ = "0.1.0"

import sys
import types
import warnings
from .docstrings import Documented

warnings.filterwarnings("ignore", message="IProgress not found")       # tqdm's, in notebooks; popnb draws its own bars
if not any(isinstance(f, Documented) for f in sys.meta_path): sys.meta_path.insert(0, Documented("popnb", leave=("cli",)))

# Verb -> module and, if it is called differently there, its name
_VERBS = {
    "read_source": "popnb.data.sources", "read_table": "popnb.data.table", "write_table": "popnb.data.table",
    "simulate": "popnb.simulation.dataset", "collect": "popnb.youtube.collector", "download": "popnb.media.download",
    "check": "popnb.media.integrity:check_paths", "audit": "popnb.audit.audit", "clean": "popnb.data.cleaning",
    "handmade": "popnb.features.signal_table", "systems": "popnb.models.predictor:systems_table",
    "train": "popnb.runs.front", "load": "popnb.models.predictor", "predict": "popnb.runs.predict:predict_videos",
    "evaluate": "popnb.evaluation.report", "evaluate_run": "popnb.runs.train",
    "leaderboard": "popnb.evaluation.leaderboard", "compare": "popnb.evaluation.compare:compare_runs",
    "tune": "popnb.runs.tune", "auto": "popnb.runs.auto", "distil": "popnb.runs.distil", "ablate": "popnb.runs.ablation:ablate_run",
    "explain": "popnb.explain.report", "what_if": "popnb.runs.what_if", "plan": "popnb.runs.plan:plan_training", "push": "popnb.runs.hub",
    "doctor": "popnb.environment", **dict.fromkeys(("labels", "splits", "metrics", "encoders"), "popnb.runs.front"),
}
__all__ = [*_VERBS]

def _verb(name):
    from importlib import import_module
    module,_,own = _VERBS[name].partition(":")
    return getattr(import_module(module), own or name)

class _Callable(types.ModuleType):
    "A sub-package whose name is also a verb, e.g. `popnb.explain(run, item)` beside `popnb.explain.report`"
    def __call__(self, *args, **options): return _verb(self.__name__.rpartition(".")[2])(*args, **options)

def _call_package(name):
    "Make a sub-package callable as the verb of the same name"
    sys.modules[name].__class__ = _Callable

def __getattr__(name):
    "Import a verb when it is first used, so that `import popnb` loads nothing heavy"
    if name not in _VERBS:
        from difflib import get_close_matches
        close = get_close_matches(name, _VERBS, 1)
        hint = f". Did you mean {close[0]!r}?" if close else ""
        raise AttributeError(f"module 'popnb' has no attribute {name!r}{hint}")
    verb = _verb(name)
    return globals().setdefault(name, verb)         # a sub-package of this name has come into its place meanwhile

def __dir__(): return sorted({*_VERBS, *(k for k in globals() if k[:1] != "_" or k[:2] == "__")} - {"sys", "types", "warnings", "docstrings", "Documented"})
