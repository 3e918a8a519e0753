"""Pictures people look at: overlays and curves."""
