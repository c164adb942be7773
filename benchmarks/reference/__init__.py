"""Plain loops with the mathematics and the shape of the published program, to be timed beside ours.

Written from the equations, simply: one network a member, one environment at a time, torch's own
layers and optimisers. Weights are copied from our modules, so that both do the same work. Where the
published program departs from its mathematics (`docs/method.md`), these loops do what ours does.
"""
