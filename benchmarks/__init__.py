"""One script for each measured table of docs/results."""
