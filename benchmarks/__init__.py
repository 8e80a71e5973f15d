"""One script for each measured table of the README."""
