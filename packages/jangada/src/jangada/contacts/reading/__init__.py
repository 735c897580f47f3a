"""Reading contact files: bytes in, checked batches out, with flat memory.

The steps are modules, in the order in which the bytes pass them: `decoding` (which encoding),
`records` (lines and cells), `dialects` (which delimiter), `columns` (which column is what), `rows`
(which rows are good). Nothing here touches a database, so that all of it runs in a thread and in
tests alike. A file that can't be read raises an `UnreadableFile`; a row that can't be used is
rejected with a `Reason` and its line number.
"""
