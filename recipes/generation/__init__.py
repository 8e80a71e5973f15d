"""Text generation: the decoding loop with its cache, and prompts to texts."""
