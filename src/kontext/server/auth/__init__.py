"""Who may do what: API keys, login tokens, and the dependencies of routes that resolve them."""
