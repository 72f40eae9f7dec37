"""What is remembered of answers after they were given: how outputs spread, for drift."""
