"""Policies: the torch networks that learn and the torch-free inference that acts."""
