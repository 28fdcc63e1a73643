"""Larger models: their memory, several GPUs, tiny stand-ins, KoAlpaca's data. Taught in 04."""
