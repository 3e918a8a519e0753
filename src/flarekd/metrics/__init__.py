"""How a segmentation is scored (pure).

``overlap`` and ``surface`` measure two masks, ``protocols`` two label maps as FLARE 2023 does,
``lesions`` the tumours one by one; ``statistics`` says how sure a mean is and whether two models
differ.
"""

from flarekd.metrics.overlap import dice
from flarekd.metrics.protocols import PROTOCOLS, TUBES, ClassScore, score_case, summarize
from flarekd.metrics.surface import surface_dice
from flarekd.metrics.surfels import surfel_areas

__all__ = [
    "PROTOCOLS",
    "TUBES",
    "ClassScore",
    "dice",
    "score_case",
    "summarize",
    "surface_dice",
    "surfel_areas",
]
