"""Makes and signs a TUF repository of releases and plans: static files for any web server."""
