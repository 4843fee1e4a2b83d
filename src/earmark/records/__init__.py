"""The records that cross a file boundary: what they hold, their limits, how they are read and written."""
