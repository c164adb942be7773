"""Task families and batched simulators, each with its reward as a pure vectorised function."""
