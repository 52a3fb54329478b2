"""The runtime over HTTP: webhooks, the API, `perdure serve`."""
