"""Faults by the thousand: kills, full disks, damaged files and generated input. Slow; `make test-all` runs them."""
