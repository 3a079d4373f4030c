"""The benchmarks: ``python -m benchmarks --suite fill --json out.json``. The method is in README.md beside this file.

``suites/`` says what is measured, ``contestants/`` who takes part, ``measuring/`` how, with correctness before timing;
``showing/`` turns results into tables, pages and verdicts on targets. ``quality/`` looks at what is drawn, ``instructions/``
counts what a kernel executes. Nothing in the package imports this.
"""
