"""flarekd: 13 organs and tumours in abdominal CT, from partly labelled cohorts to a small model.

>>> import flarekd
>>> labels = flarekd.segment("scan.nii.gz", "model.safetensors")  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flarekd.student.api import load, segment, to_simpleitk, write_labels

__version__ = "0.1.0"
__all__ = ["__version__", "load", "segment", "to_simpleitk", "write_labels"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        # torch takes seconds to import: only who segments pays
        return getattr(import_module("flarekd.student.api"), name)
    raise AttributeError(f"module 'flarekd' has no attribute {name!r}")
