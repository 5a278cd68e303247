"""Evaluation of trained defenders by the challenge's protocol."""
