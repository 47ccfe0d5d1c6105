"""What zkside costs and gives, beside what a user would do instead: `python -m bench [name …] [--quick]`."""
