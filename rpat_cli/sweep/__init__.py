"""From one YAML file to a table with error bars: spec, expand, runner over an engine, table."""
