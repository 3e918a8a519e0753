"""Files and geometry: formats, orientation, resampling, intensity, the case store."""
