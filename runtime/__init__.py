"""What every process does: settings, logging, metrics, signals, and being restarted."""
