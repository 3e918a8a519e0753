"""flarekd: 13 organs and tumours in abdominal CT, from partly labelled cohorts to a small model.

>>> import flarekd
>>> labels = flarekd.segment("scan.nii.gz", "model.safetensors")  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flarekd.student.segment import segment

__version__ = "0.1.0"
__all__ = ["__version__", "segment"]


def __getattr__(name: str) -> Any:
    if name == "segment":
        # torch takes seconds to import: only who segments pays
        return import_module("flarekd.student.segment").segment
    raise AttributeError(f"module 'flarekd' has no attribute {name!r}")
