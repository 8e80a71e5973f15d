"""From a run to predictions: export, embedded server, client. Importing it imports nothing slow."""
