"""A tool that makes models smaller and faster, and proves it. Not built yet."""
