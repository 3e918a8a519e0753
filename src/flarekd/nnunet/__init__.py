"""What nnU-Net v1 and v2 leave behind, read as data: checkpoints and plans of plain U-Nets."""
