"""Test vectors: convolution problems with their right answers, as files that any language can read.

``entries`` lists the problems, each with its purpose; ``write`` fills them with numbers, finds the catalogued mistakes
that each problem catches, and writes the files.
"""

from refconv.testing.vectors.write import VectorsError, contents, write_vectors

__all__ = ["VectorsError", "contents", "write_vectors"]
