"""Pictures and the page a person looks at after a run."""
