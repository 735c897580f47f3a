"""Says how long the functions of the platform are: median ≤ 8 and p90 ≤ 30 is good code."""

import statistics

from sources import functions, length, sources

lengths = [
    length(function)
    for source in sources()
    if source.is_production
    for function in functions(source)
]
deciles = statistics.quantiles(lengths, n=10)
print(
    f"{len(lengths)} functions, median {statistics.median(lengths):.0f}, p90 {deciles[8]:.0f} lines"
)
