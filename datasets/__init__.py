"""What lies on disk between stages: trials, hyper-states, checkpoints; plain numpy."""
