"""Videos of adapting agents: the scene, and beside it the belief."""
