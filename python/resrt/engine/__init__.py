"""Engines: what is built, the engine itself, its backends, and the cache of built files."""
