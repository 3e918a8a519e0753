"""What both networks share in training.

Loss, schedule, augmentation, sampling, loop, checkpoints.
"""
