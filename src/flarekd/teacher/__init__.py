"""The resource-intensive teacher: a 2D attention U-Net that finds tumours, slice by slice."""
