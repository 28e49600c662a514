"""Image payloads: every supported encoding against hand-made bytes, and plain refusals."""

import io

import cv2
import numpy as np
import PIL.Image
import pytest
from scipy.ndimage import convolve

from como_core.formats.images import ImageError, compressed_fault, decode_compressed, decode_image, encode_image

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
        (("8UC7", 2, 3, 14, 0, b"\0" * 42), "'8UC7' is not supported; expected one of rgb8, bgr8"),
        (("16UC1", 2, 3, 3, 0, b"\0" * 9), "step is 3 bytes; 16UC1 at width 2 needs 4"),
        (("32FC1", 2, 3, 8, 0, b"\0" * 23), "holds 23 bytes; step 8 x height 3 needs 24"),
        (("yuv422", 3, 2, 6, 0, b"\0" * 12), "yuv422 is 3 pixels wide.*expected an even number"),
        (("bayer_rggb8", 1, 4, 1, 0, b"\0" * 4), "bayer_rggb8 is 1x4 pixels.*at least 2x2"),
        (("rgb8", 2, 3, 5, 0, b"\0" * 15), "step is 5 bytes; rgb8 at width 2 needs 6"),
        (("rgb8", 2, 3, 6, 0, b"\0" * 17), "holds 17 bytes; step 6 x height 3 needs 18"),
        (("rgb8", 0, 3, 6, 0, b"\0" * 18), "0x3 pixels"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(arguments, words):
    with pytest.raises(ImageError, match=words):
        decode_image(*arguments)


def half_even(values: np.ndarray) -> np.ndarray:
    return np.rint(values).astype(np.uint8)


@pytest.mark.parametrize("padding", [0, 6])
@pytest.mark.parametrize("order", ["<", ">"])
def test_mono16_is_its_upper_eight_bits_rounded(order, padding):
    grey = np.array([[0, 128, 129], [257, 40000, 65535]], np.uint16)
    rows = grey.astype(f"{order}u2").view(np.uint8).reshape(2, 6)
    data = np.hstack([rows, np.full((2, padding), 99, np.uint8)]).tobytes()
    decoded = decode_image("mono16", 3, 2, 6 + padding, order == ">", data)
    np.testing.assert_array_equal(decoded, np.repeat(half_even(grey / 257)[..., None], 3, axis=2))


@pytest.mark.parametrize("order", ["<", ">"])
def test_depth_is_grey_on_one_scale_in_millimetres_and_in_metres(order):
    metres = np.array([[0.0, 0.5, 1.0, 2.0], [3.999, 4.0, 9.0, 0.25]])
    expected = np.repeat(half_even(np.minimum(metres / 4, 1) * 255)[..., None], 3, axis=2)
    millimetres = np.rint(metres * 1000).astype(f"{order}u2")
    np.testing.assert_array_equal(decode_image("16UC1", 4, 2, 8, order == ">", millimetres.tobytes()), expected)
    floats = metres.astype(f"{order}f4")
    np.testing.assert_array_equal(decode_image("32FC1", 4, 2, 16, order == ">", floats.tobytes()), expected)


def test_depth_that_was_not_measured_is_black_and_too_far_is_white():
    depth = np.array([[np.nan, np.inf, -np.inf, -1.0]], np.float32)
    decoded = decode_image("32FC1", 4, 1, 16, 0, depth.tobytes())
    assert decoded[0, :, 0].tolist() == [0, 255, 0, 0]


NOISE = np.random.default_rng(5).integers(0, 256, (5, 6, 3), np.uint8)
SCENE = cv2.resize(NOISE, (48, 40), interpolation=cv2.INTER_CUBIC)


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer_gives_each_pixel_the_mean_of_its_neighbours_of_a_colour(pattern):
    """By the pattern's own letters, with convolutions: nothing of OpenCV's naming."""
    place = {(y, x): "rgb".index(pattern[2 * y + x]) for y in (0, 1) for x in (0, 1)}
    colour = np.array([[place[y % 2, x % 2] for x in range(48)] for y in range(40)])
    mosaic = np.take_along_axis(SCENE, colour[..., None], axis=2)[..., 0]
    cross = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 4
    star = np.array([[0, 1, 0], [1, 4, 1], [0, 1, 0]]) / 4
    expected = np.stack([convolve(np.where(colour == c, mosaic, 0).astype(float), star if c == 1 else cross)
                         for c in range(3)], axis=2)
    decoded = decode_image(f"bayer_{pattern}8", 48, 40, 48, 0, mosaic.tobytes())
    assert np.abs(decoded[2:-2, 2:-2] - expected[2:-2, 2:-2]).max() <= 1


@pytest.mark.parametrize(("encoding", "order"), [("yuv422", (1, 0, 3, 2)), ("yuv422_yuy2", (0, 1, 2, 3))])
def test_yuv422_is_bt601_in_video_range(encoding, order):
    generator = np.random.default_rng(6)
    luma = generator.integers(60, 190, (4, 8))
    u, v = (np.repeat(generator.integers(90, 160, (4, 4)), 2, axis=1) for _ in range(2))
    yuyv = np.stack([luma[:, 0::2], u[:, 0::2], luma[:, 1::2], v[:, 0::2]], axis=2)
    data = yuyv[..., list(order)].astype(np.uint8).tobytes()
    bright, blue, red = 1.164383 * (luma - 16.0), u - 128.0, v - 128.0
    expected = np.stack([bright + 1.596027 * red, bright - 0.391762 * blue - 0.812968 * red, bright + 2.017232 * blue],
                        axis=2)
    decoded = decode_image(encoding, 8, 4, 16, 0, data)
    assert np.abs(decoded - np.clip(expected, 0, 255)).max() <= 1.5


@pytest.mark.parametrize(("kind", "options", "tolerance"), [("png", {}, 0),
                                                           ("jpeg", {"quality": 95, "subsampling": 0}, 4)])
def test_compressed_pictures_of_another_library_are_read(kind, options, tolerance):
    stream = io.BytesIO()
    PIL.Image.fromarray(SCENE).save(stream, kind, **options)
    theirs = np.asarray(PIL.Image.open(io.BytesIO(stream.getvalue())).convert("RGB"))
    ours = decode_compressed(stream.getvalue())
    assert np.abs(ours.astype(int) - theirs).max() <= tolerance
    assert np.abs(ours.astype(int) - SCENE).mean() <= 3, "and it is that picture, not its blue and red swapped"


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


@pytest.mark.parametrize("pixels", [np.full((2, 3), 1000, np.uint16), RGB.astype(np.uint16) * 257])
def test_compressed_pictures_of_sixteen_bits_are_not_cut_down_to_eight(pixels):
    """Depth of 1 m would be black, and 64 where it comes raw."""
    with pytest.raises(ImageError, match="16 bits a value, expected 8; take depth and 16-bit pictures from the raw"):
        decode_compressed(cv2.imencode(".png", pixels)[1].tobytes())


@pytest.mark.parametrize(("written", "words"), [
    ("16UC1; compressedDepth png", "compressed depth; expected JPEG or PNG"),
    ("32FC1; compressedDepth", "compressed depth"), ("bayer_rggb8; png compressed ", "a compressed mosaic"),
    ("bayer_rggb8; jpeg compressed bgr8", None), ("rgb8; jpeg compressed bgr8", None), ("jpeg", None), ("", None),
])
def test_a_format_that_says_what_cannot_be_read_is_named(written, words):
    fault = compressed_fault(written)
    assert fault is None if words is None else words in fault and repr(written) in fault
