"""The service: one loaded model behind HTTP, with verdicts that come back into profiles.

    service = Service(load_registry(["part.profile"]), ServeOptions())
    app = create_app(service)

It needs the extra `serve`; `blemish.serve.extra.require` says so in one sentence.
"""
