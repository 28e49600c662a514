"""Messages carry an interface's values there and back, and say what is wrong by topic."""

import numpy as np
import pytest
from geometry_msgs.msg import PoseStamped
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CompressedImage, Image, JointState

from como_core.errors import ComoError
from como_core.formats.bag_streams import serialized_stamp_ns
from como_core.formats.images import decode_image
from como_core.interface import Camera, StateStream, load_interface
from como_core.resources import resource
from como_ros import messages
from como_ros.images import image_message, message_fault, rgb_image

INTERFACE = load_interface(resource("config/interfaces/metaworld.yaml"))
CAMERA = INTERFACE.cameras["front"]


def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (CAMERA.height, CAMERA.width, 3), np.uint8)


def test_stamps_keep_every_nanosecond() -> None:
    for ns in (0, 1, 999_999_999, 1_000_000_000, 1_795_222_454_992_262_674):
        assert messages.stamp_ns(messages.to_stamp(ns)) == ns


def test_a_stamp_is_read_from_the_bytes() -> None:
    message = messages.twist_message(np.zeros(4), INTERFACE.action, 1_795_222_454_992_262_674)
    assert serialized_stamp_ns(bytes(serialize_message(message))) == 1_795_222_454_992_262_674
    assert serialized_stamp_ns(b"\x00\x00\x00\x00" + bytes([0, 0, 0, 1, 0, 0, 0, 2])) == 1_000_000_002


@pytest.mark.parametrize("name", list(INTERFACE.state))
def test_states_go_there_and_back(name: str) -> None:
    stream = INTERFACE.state[name]
    values = np.arange(1, 1 + len(stream.names), dtype=np.float32) / 8
    message = messages.state_message(values, stream, 25_000_000, "base")
    assert isinstance(message, messages.message_class(stream.type))
    assert messages.stamp_ns(message.header.stamp) == 25_000_000
    np.testing.assert_array_equal(messages.state_values(message, stream), values)


def test_joints_are_found_by_name_and_a_missing_one_is_refused() -> None:
    stream = StateStream("joint_states", "sensor_msgs/msg/JointState", ("b", "a"), 40.0, 0.3)
    message = JointState(name=["a", "x", "b"], position=[1.0, 9.0, 2.0])
    np.testing.assert_array_equal(messages.state_values(message, stream), [2.0, 1.0])
    with pytest.raises(ComoError, match=r"joint_states.*joint 'a'.*has b"):
        messages.state_values(JointState(name=["b"], position=[2.0]), stream)
    with pytest.raises(ComoError, match="joint 'b'"):
        messages.state_values(JointState(name=["b", "a"]), stream)


def test_a_name_that_the_message_lacks_is_refused() -> None:
    with pytest.raises(ComoError, match=r"ee_pose.*'position\.w'"):
        messages.set_field(PoseStamped().pose, "position.w", 0.0, "ee_pose")
    with pytest.raises(ValueError, match=r"'position\.w' is not one of .*did you mean 'position\.[xyz]'"):
        StateStream("ee_pose", "geometry_msgs/msg/PoseStamped", ("position.x", "position.w"), 40.0, 0.3)


def test_commands_go_there_and_back_with_the_gripper_apart() -> None:
    action = np.array([0.1, -0.2, 0.3, 1.7], np.float32)
    twist = messages.twist_message(action, INTERFACE.action, 7)
    assert twist.header.frame_id == INTERFACE.action.frame
    np.testing.assert_allclose(messages.twist_values(twist, INTERFACE.action), action[:3])
    assert twist.twist.angular.z == 0.0
    assert messages.gripper_message(action).data == 1.0


def test_unknown_message_types_are_named() -> None:
    for name in ("nothing_msgs/msg/Image", "sensor_msgs/msg/Imag", "garbage"):
        with pytest.raises(ComoError, match=name):
            messages.message_class(name)


def test_images_go_there_and_back() -> None:
    rgb = picture()
    message = image_message(rgb, 5, "front")
    assert (message.encoding, message.step, message.height) == ("rgb8", 3 * CAMERA.width, CAMERA.height)
    np.testing.assert_array_equal(rgb_image(message, CAMERA), rgb)


def test_compressed_images_are_read() -> None:
    import cv2

    rgb = picture()
    png = cv2.imencode(".png", rgb[..., ::-1])[1].tobytes()
    np.testing.assert_array_equal(rgb_image(CompressedImage(format="png", data=png), CAMERA), rgb)
    depth = CompressedImage(format="16UC1; compressedDepth png", data=bytes(12) + png)
    assert "'16UC1; compressedDepth png' is compressed depth" in (message_fault(depth, CAMERA) or "")
    with pytest.raises(ComoError, match=r"camera/image_raw.*compressed depth; expected JPEG or PNG"):
        rgb_image(depth, CAMERA)


def test_bad_images_name_their_topic() -> None:
    with pytest.raises(ComoError, match=r"camera/image_raw.*64 x 64"):
        rgb_image(image_message(picture()[:32], 0), CAMERA)
    short = image_message(picture(), 0)
    short.step = 100
    with pytest.raises(ComoError, match=r"camera/image_raw.*step is 100 bytes; rgb8 at width 64 needs 192"):
        rgb_image(short, CAMERA)
    odd = Image(encoding="yuv420", width=64, height=64, step=64, data=bytes(6144))
    with pytest.raises(ComoError, match=r"camera/image_raw.*yuv420"):
        rgb_image(odd, Camera("camera/image_raw", 64, 64, 40.0, 0.3))


@pytest.mark.parametrize(("change", "words"), [
    ({"encoding": "bgr8"}, "encoding 'bgr8', expected 'rgb8'"), ({"encoding": "yuv420"}, "'yuv420' is not supported"),
    ({"step": 100}, "step is 100 bytes"), ({"step": 200}, "holds 12288 bytes; step 200 x height 64 needs 12800"),
    ({"width": 32}, "32 x 64 pixels, expected 64 x 64"),
])
def test_what_is_wrong_with_an_image_is_seen_without_decoding_it(change: dict[str, object], words: str) -> None:
    message = image_message(picture(), 0)
    assert message_fault(message, CAMERA) is None
    for name, value in change.items():
        setattr(message, name, value)
    assert words in (message_fault(message, CAMERA) or "")


ENCODINGS = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1, "mono16": 2, "bayer_rggb8": 1, "bayer_bggr8": 1,
             "bayer_gbrg8": 1, "bayer_grbg8": 1, "yuv422": 2, "yuv422_yuy2": 2}


@pytest.mark.parametrize("encoding", list(ENCODINGS))
def test_cv_bridge_gives_the_same_pixels(encoding: str) -> None:
    bridge = pytest.importorskip("cv_bridge", reason="cv_bridge is not installed (it is not on PyPI)").CvBridge()
    data = np.random.default_rng(1).integers(0, 256, 64 * 64 * ENCODINGS[encoding], np.uint8)
    message = Image(encoding=encoding, width=64, height=64, step=64 * ENCODINGS[encoding], data=data.tobytes())
    ours = decode_image(encoding, 64, 64, message.step, 0, message.data)
    np.testing.assert_array_equal(bridge.imgmsg_to_cv2(message, "rgb8"), ours)
