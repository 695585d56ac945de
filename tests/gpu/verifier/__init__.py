"""Verifies vramtrace against programs that know what they allocated, and against compute-sanitizer."""
