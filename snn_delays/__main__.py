"""`python -m snn_delays`: the same as the command `snn-delays`."""

from snn_delays.cli import main

if __name__ == "__main__":
    main()
