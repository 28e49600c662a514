"""Buttons of a recorder: words on `record/button`, and buttons of a joystick on `joy`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from rclpy.node import Node
from sensor_msgs.msg import Joy
from std_msgs.msg import String

from como_core.config import nearest
from como_core.errors import ComoError
from como_ros import qos

BUTTON_TOPIC, JOY_TOPIC = "record/button", "joy"

Verbs = Mapping[str, Callable[[], Awaitable[str]]]


class RecorderRemote:
    """Calls a verb for each word or pressed button; the answer goes into the log, since nobody waits for it.

    joy_buttons  such as "start:7 stop:6": a verb and the number of its button; empty: no joystick

    Raises ComoError for a mapping that cannot be read.
    """

    def __init__(self, node: Node, verbs: Verbs, joy_buttons: str, group: Any) -> None:
        self._node, self._verbs = node, verbs
        self._buttons = joy_mapping(joy_buttons, verbs)
        self._pressed: set[str] = set()
        # No qos.subscribe: it has no callback group, and these verbs must wait for those of the services.
        node.create_subscription(String, BUTTON_TOPIC, self._on_word,  # type: ignore[arg-type]  # may be a coroutine
                                 qos.command(10), callback_group=group)
        if self._buttons:
            node.create_subscription(Joy, JOY_TOPIC, self._on_joy,  # type: ignore[arg-type]
                                     qos.stream(), callback_group=group)

    async def _on_word(self, message: String) -> None:
        if message.data not in self._verbs:
            self._node.get_logger().error(f"{BUTTON_TOPIC}: no verb {message.data!r}; "
                                          f"{nearest(message.data, self._verbs)}")
            return
        await self._call(message.data)

    async def _on_joy(self, message: Joy) -> None:
        pressed = {verb for verb, button in self._buttons.items()
                   if button < len(message.buttons) and message.buttons[button]}
        new, self._pressed = pressed - self._pressed, pressed
        for verb in self._buttons:
            if verb in new:
                await self._call(verb)

    async def _call(self, verb: str) -> None:
        try:
            self._node.get_logger().info(f"{verb}: {await self._verbs[verb]()}")
        except ComoError as error:
            self._node.get_logger().error(f"{verb} refused: {error}")


def joy_mapping(text: str, verbs: Verbs) -> dict[str, int]:
    """verb -> button of a text such as "start:7 stop:6". Raises ComoError, naming the word, for any other text."""
    found: dict[str, int] = {}
    for word in text.replace(",", " ").split():
        verb, _, number = word.partition(":")
        if verb not in verbs or not number.isdigit():
            raise ComoError(f"parameter 'joy_buttons': {word!r} is not verb:button, such as start:7; verbs: "
                            f"{', '.join(verbs)}")
        found[verb] = int(number)
    return found
