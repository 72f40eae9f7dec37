"""What an operator and a program read of a search: ``report.json``, ``report.md`` and pictures."""
