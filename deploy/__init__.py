"""What runs the services: the embedded stack, containers, dashboards and the command line."""
