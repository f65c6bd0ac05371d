"""The sizes that a pipeline gives to a graph's dynamic axes, for engines that are built for some sizes only."""

Range = tuple[int, int, int]  # least, usual, largest
Axes = dict[int, Range]  # number of a dynamic axis -> its sizes
Inputs = dict[str, Axes]  # input -> its axes

EVERY = "*"  # the inputs that a table does not name
IMAGE_AXES = 4  # of an input that takes pictures: batch, sides and channels
