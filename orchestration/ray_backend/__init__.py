"""Ray: the engine, actor pools, placement, preflight, jobs, Ray Tune and Ray Train."""
