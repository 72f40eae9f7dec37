"""What is believed of the repository: the only import of tuf."""
