"""Tensors to tensors: VRT, the spike branch, their fusion, and strict loading of weights."""
