"""What embeds a text, so that a space can be searched by it: see `base.Embedder`."""
