"""Tests. ``unit`` needs no process; ``integration`` drives the installed daemon."""
