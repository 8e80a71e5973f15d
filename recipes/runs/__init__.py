"""Run directories: their files, their settings and who may write them."""
