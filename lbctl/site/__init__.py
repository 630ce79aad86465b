"""What a site is: its value types and the keys of its file, the file's reader and writer, and what operators order
beside it.

Uses `values` alone, and yaml in `file`. All rooms above use the value types; the shell and the command read files;
the state file (`store`), REST (`api`) and the command (`cli`) ask the keys' declarations what they are to keep, take
and show.

Offered: `model` (the value types, each field with its key), `file` (`load`, `parse`, `ConfigError`), `file.text`
(`site_text`), `orders` (`in_force`: a file and what was ordered beside it), `documents` (parts as JSON values),
`keys` and `forms` (how a key is declared). What else is in `file` is its own.
"""
