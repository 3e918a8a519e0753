"""What is measured, and against whom: scripts that a reader can run again."""
