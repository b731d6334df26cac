"""Validation: on the synthetic training distribution, on out-of-distribution products, and of the words."""
