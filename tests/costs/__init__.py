"""What calls cost, in numbers that do not depend on the machine: functions called, awaits, system calls."""
