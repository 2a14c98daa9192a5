from popnb import _call_package

_call_package(__name__)     # popnb.audit(…) is a word of the workflow
