"""Update rules: one file a rule, all of them batched over independent agents."""

from algorithms.learners.base import Batch, Learner
from algorithms.learners.registry import make_learner

__all__ = ["Batch", "Learner", "make_learner"]
