"""Meta-World's ML1 task families: one skill each, with tasks that differ in what is where."""
