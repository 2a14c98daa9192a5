"Predict how popular a short video will be"
__version__ = "0.1.0"

_VERBS = {"train": "popnb.runs.train", "evaluate": "popnb.evaluation.report", "load": "popnb.models.predictor"}

def __getattr__(name):
    "Import a main verb when it is first used, so that `import popnb` loads nothing heavy"
    if name not in _VERBS: raise AttributeError(f"module 'popnb' has no attribute {name!r}")
    from importlib import import_module
    return getattr(import_module(_VERBS[name]), name)

def __dir__(): return sorted([*globals(), *_VERBS])
