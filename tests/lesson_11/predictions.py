"""Where the predictions of lesson 11 are settled, and what would give each answer away before."""

SETTLED = {
    "11.drift": ("lesson11-08", r"drift \d+% apart|(?i:steps are twice as large)"),
    "11.data": ("lesson11-10", r"in the data +rank 1 alone +all skip +all skip|(?i:rides through the sum)"),
    "11.long": ("lesson11-35", r"10,000 +-6\.\d +-6\.\d +3\.\d|(?i:skips are as rare)|one fall in 2,000"),
}
