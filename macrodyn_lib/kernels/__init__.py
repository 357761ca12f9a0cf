"""Compiled dynamics: arrays and scalars in, arrays out; callers validate and allocate."""
