"""Interactive pictures: the base of every panel, work in the background, training that is watched."""
