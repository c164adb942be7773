"""Meta-World's ML1: fifty task sets of one robot arm, each a task family."""
