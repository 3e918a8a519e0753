"""What all tests share: no deadlines, since a busy machine says nothing about the code."""

import torch
from hypothesis import settings

# tensors here are tiny: threads would only wait for one another
torch.set_num_threads(1)

settings.register_profile("flarekd", deadline=None, max_examples=50)
settings.load_profile("flarekd")
