# make demo    the whole way in simulation over real ROS 2, from video to a moving arm
# make test    every test, with coverage
# make doctor  what this machine has and how to mend what it lacks
# make lint    ruff and mypy
#
# Each first makes .venv and installs the pinned dependencies, once. ARGS goes to the command:
#   make test ARGS="-k recorder"    make demo ARGS="--out /data/demo"

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
ARGS ?=

# Where a ROS 2 distribution is sourced its rclpy is used, which lives in the system's Python; else wheels from PyPI.
ifdef ROS_DISTRO
EXTRAS := sim,pusht,test
VENV_FLAGS := --system-site-packages
else
EXTRAS := ros,sim,pusht,test
VENV_FLAGS :=
endif

# The ROS wheels mark an environment whose library path they have set; it does not hold for another .venv.
unexport _ROS_WHEELS_BOOTSTRAP_COMPLETE

INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test doctor lint install preflight

help:
	@sed -n '/^# make/,/^$$/{s/^# \{0,1\}//p}' Makefile

demo: install
	$(VENV)/bin/como demo $(ARGS)

test: install
	$(VENV)/bin/python -m pytest -n $(WORKERS) --dist loadfile --cov --cov-report term $(ARGS)

doctor: install
	$(VENV)/bin/como doctor $(ARGS)

lint: install
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

install: $(INSTALLED)

# What the system lacks is said before the long work, at every start.
preflight:
	@command -v $(PYTHON) >/dev/null || { echo "como_ros: no $(PYTHON); mend it with: apt-get install -y python3-venv" >&2; exit 1; }
	@$(PYTHON) -m como_core.preflight $(VENV)

$(INSTALLED): constraints.txt setup.py | preflight
	test -x $(VENV)/bin/pip || $(PYTHON) -m venv $(VENV_FLAGS) $(VENV)
	$(VENV)/bin/python -m pip install -c constraints.txt setuptools
	$(VENV)/bin/python -m pip install -c constraints.txt --no-build-isolation -e ".[$(EXTRAS)]"
	$(VENV)/bin/python -m pip install -c constraints.txt --no-deps gym-pusht
	touch $@
