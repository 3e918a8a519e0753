"""A synthetic FLARE cohort: bodies, organs, tumours, scanners and partial labels."""
