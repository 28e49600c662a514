"""A running graph for a stage: the simulated arm, what else the stage starts, and the operator's hand on it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from como_core.interface import load_interface
from como_core.resources import resource
from como_ros.demo.operator import Operator
from como_ros.demo.plan import DemoPlan
from como_ros.processes import NodeProcess, stop_all

NAMESPACE = "/como_demo"
# Not domain 0, where a real arm may listen; and nothing leaves this machine.
DOMAIN_ID = int(os.environ.get("ROS_DOMAIN_ID", "77"))


class Session:
    """Starts `sim_node` at once and other nodes on demand, all under one namespace with simulated time."""

    def __init__(self, plan: DemoPlan, logs: Path) -> None:
        self.plan, self._logs = plan, logs
        self.interface_path = resource(plan.interface)
        self.interface = load_interface(self.interface_path)
        self._nodes: list[NodeProcess] = []
        self.operator = Operator(self.interface, NAMESPACE, DOMAIN_ID)
        self.start("sim_node", env=plan.envs[0], rate_factor=plan.rate_factor, interface=self.interface_path)

    def start(self, module: str, **parameters: object) -> NodeProcess:
        """Start a node of this package; every node but the clock's source runs on simulated time."""
        given: Mapping[str, object] = parameters if module == "sim_node" else {"use_sim_time": True, **parameters}
        environment = {"ROS_DOMAIN_ID": str(DOMAIN_ID), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
        node = NodeProcess(module, given, self._logs / f"{module}.log", environment, {"__ns": NAMESPACE})
        self._nodes.append(node)
        return node

    def reset(self, env: str, seed: int) -> dict[str, object]:
        """Put the arm and the scene at the start state of (env, seed); the simulation's answer."""
        self.operator.set_parameters("sim_node", env=env, seed=seed)
        return self.operator.trigger_json("sim/reset")

    def require_alive(self) -> None:
        """Raise ComoError with its log where a node has ended by itself."""
        for node in self._nodes:
            node.require_alive()

    def close(self) -> None:
        """End all nodes, then leave the graph."""
        stop_all(self._nodes)
        self._nodes.clear()
        self.operator.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
