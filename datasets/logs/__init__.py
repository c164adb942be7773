"""Readers of other programs' logs: D4RL, Minari, BOReL's folders and IDAQ's folders."""
