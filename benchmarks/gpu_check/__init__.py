"""``python -m benchmarks.gpu_check --seconds 540 --out DIR``: all that a GPU can tell about this library, in one go.

A GPU may be at hand for minutes only. So the stages come in the order of what they are worth (``stages``); each is a process of
its own with a time-out (``processes``), keeps what it finds in a file as soon as it has it, and never stops the next
(``check``). ``facts``, ``bits``, ``timed``, ``counters``, ``gpu_tests`` and ``graphs`` are what the stages do; ``work`` starts
one of them.

Needs a Python with torch and nothing else; what it leaves out for want of a package it says. ``module`` finds the native module
of that Python or builds it, ``bundle`` builds one elsewhere beforehand. ``emulated`` puts the CPU in the GPU's place, to try
the program where there is no GPU.
"""
