"""The machine that a process runs on: paths, environment variables, signals, proxies."""
