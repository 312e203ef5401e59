"""What `inmail demo` does with a running system: plays a scenario, tells what happened, and gives an account of it."""
