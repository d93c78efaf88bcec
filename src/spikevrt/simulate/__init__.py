"""Blur and spikes simulated from one linear-light scene."""
