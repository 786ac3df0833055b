"""A client for registries: OCI distribution-spec 1.1, and Docker's token and basic authentication.

    pull, push          transfer an image between the store and a registry
    download, upload    transfer one blob: streamed, verified, resumed
    received            check what a registry sends before anything uses it
    client              requests, with retries, authorization and redirects
    endpoint            where a registry is: its name, mirrors and location; HTTPS or HTTP
    authorization       get a token when a registry wants one
    credentials         the files and helper programs that Docker and Podman use
    transport           connections: TLS, proxies, and errors in words

Imported only to use a registry, never by a start.
"""
