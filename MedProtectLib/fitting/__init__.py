"""Fitting a method: the cases, the patches cut from them, the loop, and what is kept to go on after an interruption."""
