"""What this machine is, what it has, and how much of it this process may use."""
