"""Running, measuring and rehearsing the platform."""
