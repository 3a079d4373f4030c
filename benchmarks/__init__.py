"""The benchmarks: ``python -m benchmarks --suite fill --json out.json``. The method is in README.md beside this file.

``suites/`` says what is measured, ``contestants`` who takes part, ``correctness`` that the work is done right, ``timing`` how
time is taken, ``runner`` joins them, ``targets`` and ``report`` read the result. Nothing in the package imports this.
"""
