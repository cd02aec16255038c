"""The demo: an embedded digit model, pictures of what solvers make of it, and how long their updates take.

Run it with ``fastdiff-ops demo``; `fastdiff_ops.demo.digits.Digits` is the model for use in Python.
"""
