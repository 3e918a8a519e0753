"""What all tests share: this machine's timings say nothing about the code, so hypothesis sets no deadlines."""

import torch
from hypothesis import settings

# tensors here are tiny: threads would only wait for one another
torch.set_num_threads(1)

settings.register_profile("flarekd", deadline=None, max_examples=50)
settings.load_profile("flarekd")
