"""Reading: files, bytes, arrays and tensors become an upright grey or RGB `LoadedImage`; `find_images` lists files.

The notes of an image list what was done while reading it. Colour profiles (ICC) in files are ignored: the numbers are
taken as sRGB, as CLIP was trained.
"""

from blemish.image_io.find import SUFFIXES, PassedOver, find_images, natural_key
from blemish.image_io.frames import Every, expand, in_order
from blemish.image_io.pillow import decode, flatten, identify, is_deep, open_file, quiet_pillow
from blemish.image_io.read import MAX_PIXELS, LoadedImage, read_image
from blemish.image_io.tiff import open_tiff_rows

__all__ = [
    "MAX_PIXELS",
    "SUFFIXES",
    "Every",
    "LoadedImage",
    "PassedOver",
    "decode",
    "expand",
    "find_images",
    "flatten",
    "identify",
    "in_order",
    "is_deep",
    "natural_key",
    "open_file",
    "open_tiff_rows",
    "quiet_pillow",
    "read_image",
]
