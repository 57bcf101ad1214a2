"""Tables of answers, for data frames and Parquet files.

A table is made of the lines that a run or ``results`` has written (:func:`read`), or of results as they come
(:func:`from_results`). It is not held in memory: it is a stream of batches that polars, pandas, pyarrow, DuckDB and
others read by Arrow's interface ``__arrow_c_stream__``, or a Parquet file. Needs the extra ``arrow``, or pyarrow.

The columns are ``custom_id``, ``result`` (``success``, ``failure``, ``missing``, ``stray`` or ``invalid``), ``text``,
``finish_reason``, ``prompt_tokens``, ``completion_tokens``, ``error_code`` and ``error``.
"""

from together_batches.tables._async import write_parquet
from together_batches.tables._inputs import InputSource
from together_batches.tables._rows import from_results, read
from together_batches.tables._table import AnswerTable

__all__ = ["AnswerTable", "InputSource", "from_results", "read", "write_parquet"]
