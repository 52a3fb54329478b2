"""What must hold in numbers: each figure beside a baseline that is measured in the same run. `python -m benchmarks`."""
