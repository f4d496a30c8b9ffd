"""What is fitted from data, one command a module; none of it is imported by a process that serves.

- `calibrate`: the confidence gate's calibration, from decisions of which it is known whether they were right
"""
