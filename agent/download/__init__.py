"""Artifacts on their way to this device: resumed, reused, verified, within a budget."""
