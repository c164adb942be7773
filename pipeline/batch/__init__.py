"""Batches: many presets times several seeds, each run in a process of its own."""
