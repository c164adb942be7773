"""Loops that are compiled for a CPU: what passes over memory would slow down as whole-array calls.

Compiled at first use and kept on disk beside these files, or in the user's cache. What a loop has
inlined must stand in its own file: numba's cache does not notice changes in others.
"""
