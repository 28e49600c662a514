"""/diagnostics of a policy node: one status per stream, and for inference, chunk queue and latch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from como_core.control.frame_loss import FrameLoss
from como_core.control.status import Phase, Status
from como_core.control.streams import StreamAge

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


def diagnostics(node: str, hardware: str, stamp: Time, status: Status, timing: Mapping[str, Any],
                faults: Mapping[str, str], losses: Mapping[str, FrameLoss], output: bool) -> DiagnosticArray:
    """The whole report.

    timing  LoopTiming.summary()
    faults  stream name -> what is wrong with its messages or its QoS
    losses  camera name -> its frames that never came
    output  whether commands are really sent
    """
    statuses = [_stream(name, age, faults.get(name), losses.get(name)) for name, age in status.ages.items()]
    statuses += [_stream(name, None, text, None) for name, text in faults.items() if name not in status.ages]
    statuses += [_inference(status, timing), _queue(status), _latch(status, output)]
    for item in statuses:
        item.name, item.hardware_id = f"{node}: {item.name}", hardware
    array = DiagnosticArray(status=statuses)
    array.header.stamp = stamp
    return array


def _stream(name: str, age: StreamAge | None, fault: str | None, loss: FrameLoss | None) -> DiagnosticStatus:
    values = {}
    if age is not None:
        values = {"stamp_age_s": f"{age.stamp_age_s:.3f}", "arrival_age_s": f"{age.arrival_age_s:.3f}",
                  "max_age_s": f"{age.max_age_s:g}"}
    if loss is not None:
        values["lost_share"] = f"{loss.share:.3f}"
    if fault:
        return _status(f"stream {name}", ERROR, fault, values)
    if age is None:
        return _status(f"stream {name}", WARN, "nothing has arrived yet", values)
    return _status(f"stream {name}", ERROR if age.fault else OK, age.fault or "fresh", values)


def _inference(status: Status, timing: Mapping[str, Any]) -> DiagnosticStatus:
    values = {f"{name}.{figure}": str(number) for name, figures in timing.items() for figure, number in figures.items()}
    values["chunks"] = str(status.chunks)
    if status.chunks == 0:
        return _status("inference", OK, "no chunk yet", values)
    milliseconds = timing["inference_ms"]
    return _status("inference", OK, f"p50 {milliseconds['p50']} ms, p99 {milliseconds['p99']} ms", values)


def _queue(status: Status) -> DiagnosticStatus:
    values = {"steps": str(status.planned_steps), "ahead_s": f"{status.planned_s:.3f}",
              "late_chunks": str(status.late_chunks), "commands": str(status.commands),
              "bounded_commands": str(status.bounded_commands)}
    if status.phase is Phase.RUNNING and status.planned_steps == 0:
        return _status("chunk queue", WARN, "ran out: the policy is slower than its chunk is long", values)
    return _status("chunk queue", OK, f"{status.planned_steps} steps ahead", values)


def _latch(status: Status, output: bool) -> DiagnosticStatus:
    values = {"phase": status.phase.value, "output": "enabled" if output else "disabled", "cause": status.cause or ""}
    if status.cause:
        return _status("latch", ERROR, f"closed: {status.cause}", values)
    if status.waiting_for:
        return _status("latch", WARN, f"open, waiting for: {'; '.join(status.waiting_for)}", values)
    return _status("latch", OK, f"open, {status.phase.value}", values)


def _status(name: str, level: bytes, message: str, values: Mapping[str, str]) -> DiagnosticStatus:
    return DiagnosticStatus(name=name, level=level, message=message,
                            values=[KeyValue(key=key, value=value) for key, value in values.items()])
