from popnb import _call_package

_call_package(__name__)     # popnb.metrics(…) is a word of the workflow
