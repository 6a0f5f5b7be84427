"""The machine below: whole files, signals, faults, memory, threads, devices, compiled loops."""
