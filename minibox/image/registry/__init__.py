"""A client of registries: OCI distribution-spec 1.1, and Docker's token and basic authentication.

    pull, push          an image, between the store and a registry
    download, upload    one blob: streamed, verified, resumed
    received            what a registry sends, checked before anything believes it
    client              requests: tried again, authorised, redirected
    endpoint            where a registry is: its name, mirrors and location; HTTPS or HTTP
    authorization       tokens, asked for when a registry wants one
    credentials         the files and helper programs that Docker and Podman use
    transport           connections: TLS, proxies, and what went wrong in words

Imported when a registry is used, never by a start.
"""
