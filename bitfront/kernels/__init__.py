"""Triton kernels, one operation a file, each beside a reference in plain torch."""
