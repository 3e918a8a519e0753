"""flarekd: 13 organs and tumours in abdominal CT, from partly labelled cohorts to a small model."""

__version__ = "0.1.0"
