"""``deferred()``: a model's own construction code, recorded instead of run, and replayed later."""
