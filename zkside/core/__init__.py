"""Floor 2: pure decisions. Tables and functions without a clock, without I/O."""
