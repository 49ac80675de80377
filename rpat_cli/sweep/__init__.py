"""From one YAML file to a table with error bars.

`sweep_file` reads it into a `spec`, `expand` makes the trials, `runner` runs them on one of the
`engines` in the order that one of the searches decides, `table` and `page` show what came out.
"""
