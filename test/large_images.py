"""A camera or a listener as a process: `python test/large_images.py camera|listen WIDTH HEIGHT COUNT RATE_HZ`.

The camera publishes COUNT raw images with sensor-data QoS once somebody listens; the listener prints how many came.
"""

import array
import sys
import time

import rclpy
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image

TOPIC = "camera/large"
IDLE_S = 3.0
DISCOVERY_S = 20.0


def camera(width: int, height: int, count: int, rate_hz: float) -> None:
    node = rclpy.create_node("camera")
    publisher = node.create_publisher(Image, TOPIC, qos_profile_sensor_data)
    end = time.monotonic() + DISCOVERY_S
    while publisher.get_subscription_count() == 0 and time.monotonic() < end:
        time.sleep(0.05)
    time.sleep(0.5)
    message = Image(width=width, height=height, step=3 * width, encoding="rgb8",
                    data=array.array("B", bytes(3 * width * height)))
    for _ in range(count):
        publisher.publish(message)
        time.sleep(1 / rate_hz)
    time.sleep(1.0)


def listen() -> None:
    node = rclpy.create_node("listener")
    heard: list[float] = []
    node.create_subscription(Image, TOPIC, lambda m: heard.append(time.monotonic()), qos_profile_sensor_data)
    end = time.monotonic() + DISCOVERY_S
    while time.monotonic() < (heard[-1] + IDLE_S if heard else end):
        rclpy.spin_once(node, timeout_sec=0.1)
    print(len(heard))


if __name__ == "__main__":
    rclpy.init()
    if sys.argv[1] == "camera":
        camera(int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]))
    else:
        listen()
