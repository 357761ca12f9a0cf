"""Microscopic systems: one class each, all with the interface of ``base.MicroscopicSystem``."""
