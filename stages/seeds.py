"""One seed tree: run, then stage, then task or worker. There is no global generator."""

from __future__ import annotations

import zlib

import numpy as np
import torch


def seed_sequence(seed: int, *path: str | int) -> np.random.SeedSequence:
    """The node of the seed tree reached from `seed` by `path`.

    Names become numbers by CRC-32, so a node depends on nothing but its own path.
    """
    key = tuple(zlib.crc32(p.encode()) if isinstance(p, str) else p for p in path)
    return np.random.SeedSequence(entropy=seed, spawn_key=key)


def numpy_generator(seed: int, *path: str | int) -> np.random.Generator:
    """A NumPy generator at that node."""
    return np.random.default_rng(seed_sequence(seed, *path))


def torch_seed(seed: int, *path: str | int) -> int:
    """A 63-bit seed for a torch generator at that node."""
    return int(seed_sequence(seed, *path).generate_state(1, np.uint64)[0] >> np.uint64(1))


def torch_generator(seed: int, *path: str | int, device: str = "cpu") -> torch.Generator:
    """A torch generator on `device` at that node."""
    return torch.Generator(device).manual_seed(torch_seed(seed, *path))
