"""What all tests share: this machine's timings say nothing about the code, so hypothesis sets no deadlines."""

from hypothesis import settings

settings.register_profile("flarekd", deadline=None, max_examples=50)
settings.load_profile("flarekd")
