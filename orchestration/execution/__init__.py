"""How a plan is executed: scheduling, what a step's function gets, heartbeats."""
