"""Measure searches: contestants answer the same queries, in turns, in one run.

A contestant (`contestant`, `files`, `memory`, `ours`, `rivals`, `harca.postgres.by_hand`) lives
in a process of its own (`worker`), so that its time, its CPU and its memory are its own. What
they found is compared with the exact answers (`truth`); `search` and `scale` are the commands,
and their docstrings say what the result looks like.
"""
