"""The lightweight student: a small 3D U-Net that finds 13 organs and tumours."""
