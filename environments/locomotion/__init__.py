"""Families of bodies that walk, on MuJoCo and the models of Gymnasium's v5 environments."""
