"""The Fast DDS profile that comes with the package: raw images of megabytes arrive, between processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from como_core import doctor
from como_core.preflight import OK, WARN
from como_core.resources import resource

PROFILE = resource("config/fastdds/large_images.xml")
PROGRAM = str(Path(__file__).with_name("large_images.py"))
COUNT = 60


def heard(width: int, height: int, environment: dict[str, str]) -> int:
    """How many of COUNT images at 30 Hz a listener hears from a camera of another process."""
    listener = subprocess.Popen([sys.executable, PROGRAM, "listen"], env=environment, stdout=subprocess.PIPE, text=True)
    subprocess.run([sys.executable, PROGRAM, "camera", str(width), str(height), str(COUNT), "30"], env=environment,
                   check=True, timeout=60)
    return int(listener.communicate(timeout=60)[0])


@pytest.mark.parametrize(("width", "height"), [(640, 480), (1920, 1080)])
def test_raw_images_arrive_with_the_profile(width: int, height: int, ros_domain: dict[str, str]) -> None:
    environment = {**os.environ, **ros_domain, "FASTDDS_DEFAULT_PROFILES_FILE": str(PROFILE)}
    assert heard(width, height, environment) >= 0.9 * COUNT


def test_the_doctor_names_the_profile_until_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FASTDDS_DEFAULT_PROFILES_FILE", raising=False)
    monkeypatch.delenv("RMW_IMPLEMENTATION", raising=False)
    finding = doctor.large_images()
    assert finding.status == WARN and f"export FASTDDS_DEFAULT_PROFILES_FILE={PROFILE}" in finding.mend
    monkeypatch.setenv("FASTDDS_DEFAULT_PROFILES_FILE", str(PROFILE))
    assert doctor.large_images().status == OK
    monkeypatch.setenv("FASTDDS_DEFAULT_PROFILES_FILE", "/no/such/file.xml")
    assert "no such file" in doctor.large_images().found
    monkeypatch.setenv("RMW_IMPLEMENTATION", "rmw_cyclonedds_cpp")
    assert doctor.large_images().status == OK
