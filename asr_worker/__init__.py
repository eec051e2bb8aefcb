import runtime

runtime.end_by_sigterm()
