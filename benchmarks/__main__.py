"""Run the benchmarks: python -m benchmarks [NAME...] [--seconds N] [--json FILE], the same as yiqiao bench."""

from bridge.commands.bench import bench

if __name__ == "__main__":
    bench(prog_name="benchmarks")
