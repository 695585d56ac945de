"""The table that people read."""

HEAD = ("case", "truth live (count, bytes)", "ours", "compute-sanitizer", "verdict")


def table(rows):
    """Aligned columns, and what is to be said of a row below it."""
    cells = [(row.case, row.truth, row.ours, row.oracle, row.verdict) for row in rows]
    widths = [max(len(line[i]) for line in [HEAD, *cells]) for i in range(len(HEAD))]

    def line(words):
        return " | ".join(word.ljust(width) for word, width in zip(words, widths)).rstrip()

    yield line(HEAD)
    yield "-+-".join("-" * width for width in widths)
    for row, words in zip(rows, cells):
        yield line(words)
        for note in row.notes:
            yield f"    {note}"
