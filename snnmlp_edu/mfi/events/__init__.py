"""Event-driven runs: only the spikes that occurred are visited."""
