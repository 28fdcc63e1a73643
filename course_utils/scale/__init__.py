"""Larger models: their memory, several GPUs, tiny stand-ins. Taught in 04."""
