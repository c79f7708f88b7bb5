"""Class names of published data sets, where their order gives the outputs their meaning."""

#: The categories of LAD2000 in the order of their numbers, spelt as published.
LAD2000_CLASSES = (
    "Crash",
    "Crowd",
    "Destroy",
    "Drop",
    "FallIntoWater",
    "Falling",
    "Fighting",
    "Fire",
    "Hurt",
    "Loitering",
    "Panic",
    "Thiefing",
    "Trampled",
    "Violence",
)
