"""Steps that rewrite a float model, one a file, and the sequence that keeps only what helps."""
