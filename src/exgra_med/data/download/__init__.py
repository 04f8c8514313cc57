"""Published data on its way to a prepared folder: hub, addresses, archives; each with limits."""
