"""The rules: values in, decisions out. No clock, no chance, no I/O."""
