"""Pictures of simulators, for people: nothing here is part of a task family's mathematics."""
