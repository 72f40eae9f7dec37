"""A tool that makes models smaller and faster, or says why not: the command ``edge-quantize``."""
