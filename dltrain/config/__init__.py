"""The configuration: schema, composing, checking, finding `conf/`."""
