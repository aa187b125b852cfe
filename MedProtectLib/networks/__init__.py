"""Networks that make perturbations, and how they are run over large images."""
