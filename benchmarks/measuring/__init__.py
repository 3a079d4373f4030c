"""How a row is measured: clock, repetitions, memory, correctness before timing, the environment."""
