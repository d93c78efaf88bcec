"""Run a network on footage of any size and length: the only way that anything here does."""
