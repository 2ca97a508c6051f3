"""The training algorithms, one per module; docs/add-a-phase.md says how to add one."""
