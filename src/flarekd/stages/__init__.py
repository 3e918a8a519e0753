"""One file a verb: read from disk, call the pure parts, write to disk."""
