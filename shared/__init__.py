"""What the services have in common. Imports nothing from `services`."""
