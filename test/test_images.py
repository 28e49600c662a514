"""Image payloads: every supported encoding against hand-made bytes, and plain refusals."""

import cv2
import numpy as np
import pytest

from como_core.formats.images import ImageError, decode_compressed, decode_image, encode_image

RGB = np.array([[[255, 0, 0], [0, 200, 7]], [[9, 8, 77], [250, 251, 252]], [[1, 2, 3], [4, 5, 6]]], np.uint8)


@pytest.mark.parametrize(
    ("encoding", "pixels"),
    [
        ("rgb8", RGB),
        ("bgr8", RGB[..., ::-1]),
        ("rgba8", np.dstack([RGB, np.full((3, 2), 33, np.uint8)])),
        ("bgra8", np.dstack([RGB[..., ::-1], np.full((3, 2), 33, np.uint8)])),
    ],
)
@pytest.mark.parametrize("padding", [0, 5])
def test_colour_encodings_give_rgb_with_and_without_row_padding(encoding, pixels, padding):
    rows = pixels.reshape(3, -1)
    data = np.hstack([rows, np.full((3, padding), 99, np.uint8)]).tobytes()
    decoded = decode_image(encoding, 2, 3, rows.shape[1] + padding, 0, data)
    np.testing.assert_array_equal(decoded, RGB)
    assert decoded.flags.writeable


def test_mono8_repeats_grey_in_three_channels():
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3)
    decoded = decode_image("mono8", 3, 2, 3, 1, grey.tobytes())
    np.testing.assert_array_equal(decoded, np.repeat(grey[..., None], 3, axis=2))


def test_encode_then_decode_is_the_same_picture():
    encoding, step, data = encode_image(RGB[:, ::-1])
    np.testing.assert_array_equal(decode_image(encoding, 2, 3, step, 0, data), RGB[:, ::-1])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("16UC1", 2, 3, 4, 0, b"\0" * 12), "'16UC1' is not supported; expected one of rgb8, bgr8"),
        (("rgb8", 2, 3, 5, 0, b"\0" * 15), "step is 5 bytes; rgb8 at width 2 needs 6"),
        (("rgb8", 2, 3, 6, 0, b"\0" * 17), "holds 17 bytes; step 6 x height 3 needs 18"),
        (("rgb8", 0, 3, 6, 0, b"\0" * 18), "0x3 pixels"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(arguments, words):
    with pytest.raises(ImageError, match=words):
        decode_image(*arguments)


@pytest.mark.parametrize("wrong", [RGB.astype(np.float32), RGB[..., 0], RGB[:0]])
def test_only_uint8_rgb_is_encoded(wrong):
    with pytest.raises(ImageError, match=r"expected an RGB picture, uint8 \[H, W, 3\], got"):
        encode_image(wrong)


def test_compressed_images_come_back_as_rgb():
    ok, png = cv2.imencode(".png", RGB[..., ::-1])
    assert ok
    np.testing.assert_array_equal(decode_compressed(png.tobytes()), RGB)


@pytest.mark.parametrize("data", [b"", b"not a picture"])
def test_compressed_rubbish_is_refused(data):
    with pytest.raises(ImageError, match=f"compressed image of {len(data)} bytes"):
        decode_compressed(data)
