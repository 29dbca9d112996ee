"""HTTP at the edge: connections, limits, bodies, input pictures, errors as responses, static pages, logs."""
