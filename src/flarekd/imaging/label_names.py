"""The names of a label map's classes inside its NIfTI file, as a header extension.

Readers that know nothing of it skip it. The XML and its code are those of TotalSegmentator, so that
its Python reader finds the names.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from xml.etree import ElementTree as Xml

from flarekd.labels import color_of

UNKNOWN = 0
"""The code for content that is not registered. The registry gives this XML 30, but nibabel 5.4 does
not hand out what lies under that code."""


def extension(names: Mapping[int, str]) -> bytes:
    """The names as a whole NIfTI-1 extension: length, code, XML, padding to a multiple of 16 bytes.

    Args:
        names: Id to name, background left out.
    """
    root = Xml.Element("CaretExtension")
    volume = Xml.SubElement(root, "VolumeInformation", Index="0")
    table = Xml.SubElement(volume, "LabelTable")
    for label, name in sorted(names.items()):
        red, green, blue = (f"{channel / 255:.4f}" for channel in color_of(label, name))
        entry = Xml.SubElement(
            table, "Label", Key=str(label), Red=red, Green=green, Blue=blue, Alpha="1"
        )
        entry.text = name
    Xml.SubElement(volume, "VolumeType").text = "Label"
    text: bytes = Xml.tostring(root, encoding="UTF-8", xml_declaration=True)
    length = -(-(8 + len(text)) // 16) * 16
    return struct.pack("<ii", length, UNKNOWN) + text.ljust(length - 8, b"\0")
