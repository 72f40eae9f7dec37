"""A tool: model, data and a floor in; a smaller, faster, proven bundle out. Not built yet: docs/architecture.md."""
