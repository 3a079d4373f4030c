"""What a run shows: tables in a terminal and in Markdown, a page, comparisons, verdicts on targets.

Nothing is imported here, since ``page`` needs matplotlib, ``terminal`` and ``compare`` need rich, and a run on a GPU neither.
"""
